"""3Dconnexion SpaceMouse through pyspacemouse (hidraw)."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
import pyspacemouse
from easyhid import HIDException
from pyspacemouse.device import SpaceMouseDevice

from data_collection.devices.device import AXES, DeviceState, TeleopDevice, turned
from data_collection.devices.hidraw import find_mice, why_unavailable
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError

CONVENTION = pyspacemouse.AxisConvention.ROS
"""x forward (away from the operator), y left, z up; rotations about these axes (REP 103)."""

MAX_REPORTS = 64
"""The kernel keeps 64 unread HID reports; one read takes at most so many, so it cannot run forever."""
ZERO_REPORTS = 50
"""Reports without any motion after which the operator is told: a mouse at rest is silent, it does not send zeros."""
SILENCE = 0.5
"""[s] A displaced cap reports all the time; after so long without a report the displacement no longer counts."""


@dataclass(frozen=True)
class SpaceMouseConfig:
    """How the cap's displacement becomes a twist.

    operator_yaw: direction the operator looks in, about the robot's z axis [rad]; 0 for an operator
        behind the robot, pi for one who faces it.
    axes: which displacement of the cap drives x, y, z, roll, pitch and yaw of the tool: a name of
        `AXES`, "-" before it to turn it round, "" for none.
    deadband: displacement below which an axis counts as released, fraction of full scale.
    translation_scale, rotation_scale: fraction of the largest speed at full displacement, in [0, 1].
        A rotation scale of 0 makes a translation-only device.
    """

    operator_yaw: float = 0.0
    axes: tuple[str, ...] = AXES
    deadband: float = 0.08
    translation_scale: float = 1.0
    rotation_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, low, high in (("operator_yaw", -2 * np.pi, 2 * np.pi), ("deadband", 0.0, 0.9),
                                ("translation_scale", 0.0, 1.0), ("rotation_scale", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"{name}: expected a number in [{low:.3g}, {high:.3g}], got {value}")
        object.__setattr__(self, "axes", tuple(self.axes))
        if len(self.axes) != 6 or any(axis.removeprefix("-") not in (*AXES, "") for axis in self.axes):
            raise ConfigurationError(f"axes: expected six of {', '.join(AXES)}, each with or without \"-\" before it, "
                                     f"or \"\" for none, got {list(self.axes)}")

    def matrix(self) -> np.ndarray:
        """(6, 6) from the cap's displacements to the tool's axes."""
        matrix = np.zeros((6, 6))
        for row, axis in enumerate(self.axes):
            if name := axis.removeprefix("-"):
                matrix[row, AXES.index(name)] = -1.0 if axis.startswith("-") else 1.0
        return matrix


class SpaceMouse(TeleopDevice):
    """Wraps an opened pyspacemouse device whose axes follow `CONVENTION`."""

    def __init__(self, mouse: SpaceMouseDevice, config: SpaceMouseConfig | None = None) -> None:
        self.config = config or SpaceMouseConfig()
        self._mouse = mouse
        self._matrix = self.config.matrix()
        self._last_report = -1.0  # pyspacemouse's time of the last report; -1 before the first
        self._reported_at = float("-inf")
        self._zeros, self._moved, self._silent = 0, False, False

    @classmethod
    def open(cls, config: SpaceMouseConfig | None = None) -> SpaceMouse:
        """Opens the first SpaceMouse found. Raises `DeviceUnavailableError` saying what to do without one."""
        try:
            # pyspacemouse prints the name of what it found; standard output belongs to the program.
            with contextlib.redirect_stdout(sys.stderr):
                return cls(pyspacemouse.open(axis_convention=CONVENTION), config)
        except (RuntimeError, OSError, HIDException) as error:
            reason = why_unavailable(find_mice()) or f"{str(error).rstrip('.')}; does another program hold it?"
            raise DeviceUnavailableError(f"SpaceMouse: {reason}") from error

    def read(self, now: float) -> DeviceState:
        """Takes every report that waits: one at a time would lag behind a device that sends faster than we read."""
        try:
            for _ in range(MAX_REPORTS):
                state = self._mouse.read()
                if state.t == self._last_report:
                    break
                self._last_report, self._reported_at = state.t, now
                moving = any(getattr(state, axis) for axis in AXES)
                self._moved |= moving
                self._zeros += not moving
        except HIDException as error:
            raise DeviceUnavailableError(f"SpaceMouse: lost while reading ({error}); plug it in again and "
                                         "restart the teleop node") from error
        raw = np.array([getattr(state, axis) for axis in AXES], float)
        self._silent = bool(raw.any()) and now - self._reported_at > SILENCE
        buttons = tuple(bool(pressed) for pressed in state.buttons)
        return DeviceState(np.zeros(6) if self._silent else self._to_twist(raw), buttons)

    def health(self) -> str:
        if self._silent:
            return (f"SpaceMouse: displaced, but silent for more than {SILENCE:g} s, so it counts as released; check "
                    "its cable, or its battery and receiver")
        if not self._moved and self._zeros >= ZERO_REPORTS:
            return (f"SpaceMouse: {self._zeros} reports and every one of them zero; if you are moving it, stop "
                    "`spacenavd` or 3DxWare (they hold the device), charge a wireless one, and plug it in again "
                    "without touching the cap")
        return ""

    def _to_twist(self, raw: np.ndarray) -> np.ndarray:
        """(6,) displacement in the operator's axes -> (6,) fraction of the largest speed, base frame."""
        config = self.config
        # Continuous at the edge of the deadband: a step there makes small corrections impossible.
        beyond = np.maximum(np.abs(raw) - config.deadband, 0.0) / (1 - config.deadband)
        shaped = self._matrix @ np.clip(np.sign(raw) * beyond, -1.0, 1.0)
        shaped[:3] *= config.translation_scale
        shaped[3:] *= config.rotation_scale
        return turned(shaped, config.operator_yaw)

    def close(self) -> None:
        self._mouse.close()
