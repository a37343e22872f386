"""3Dconnexion SpaceMouse through pyspacemouse (hidraw)."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
import pyspacemouse
from easyhid import HIDException
from pyspacemouse.device import SpaceMouseDevice

from data_collection.devices.device import DeviceState, TeleopDevice
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError

UDEV_RULE = "data_collection/udev/70-spacemouse.rules"
AXES = ("x", "y", "z", "roll", "pitch", "yaw")
CONVENTION = pyspacemouse.AxisConvention.ROS
"""x forward (away from the operator), y left, z up; rotations about these axes (REP 103)."""

MAX_REPORTS = 64
"""The kernel keeps 64 unread HID reports; one read takes at most so many, so it cannot run forever."""


@dataclass(frozen=True)
class SpaceMouseConfig:
    """How the cap's displacement becomes a twist.

    operator_yaw: direction the operator looks in, about the robot's z axis [rad]; 0 for an operator
        behind the robot, pi for one who faces it.
    deadband: displacement below which an axis counts as released, fraction of full scale.
    translation_scale, rotation_scale: fraction of the largest speed at full displacement, in [0, 1].
        A rotation scale of 0 makes a translation-only device.
    """

    operator_yaw: float = 0.0
    deadband: float = 0.08
    translation_scale: float = 1.0
    rotation_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, low, high in (("operator_yaw", -2 * np.pi, 2 * np.pi), ("deadband", 0.0, 0.9),
                                ("translation_scale", 0.0, 1.0), ("rotation_scale", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(f"{name}: expected a number in [{low:.3g}, {high:.3g}], got {value}")


class SpaceMouse(TeleopDevice):
    """Wraps an opened pyspacemouse device whose axes follow `CONVENTION`."""

    def __init__(self, mouse: SpaceMouseDevice, config: SpaceMouseConfig | None = None) -> None:
        self.config = config or SpaceMouseConfig()
        self._mouse = mouse
        self._last_report = -1.0  # pyspacemouse's time of the last report; -1 before the first
        cosine, sine = np.cos(self.config.operator_yaw), np.sin(self.config.operator_yaw)
        self._turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])

    @classmethod
    def open(cls, config: SpaceMouseConfig | None = None) -> SpaceMouse:
        """Opens the first SpaceMouse found. Raises `DeviceUnavailableError` saying what to do without one."""
        try:
            # pyspacemouse prints the name of what it found; standard output belongs to the program.
            with contextlib.redirect_stdout(sys.stderr):
                return cls(pyspacemouse.open(axis_convention=CONVENTION), config)
        except (RuntimeError, OSError, HIDException) as error:
            raise DeviceUnavailableError(
                f"SpaceMouse: {str(error).rstrip('.')}; plug it in and allow access to it with "
                f"`sudo cp {UDEV_RULE} /etc/udev/rules.d/ && sudo udevadm control --reload && sudo udevadm trigger`"
            ) from error

    def read(self, now: float) -> DeviceState:
        """Takes every report that waits: one at a time would lag behind a device that sends faster than we read."""
        try:
            for _ in range(MAX_REPORTS):
                state = self._mouse.read()
                if state.t == self._last_report:
                    break
                self._last_report = state.t
        except HIDException as error:
            raise DeviceUnavailableError(f"SpaceMouse: lost while reading ({error}); plug it in again and "
                                         "restart the teleop node") from error
        raw = np.array([getattr(state, axis) for axis in AXES], float)
        buttons = tuple(bool(pressed) for pressed in state.buttons)
        return DeviceState(self._to_twist(raw), buttons)

    def _to_twist(self, raw: np.ndarray) -> np.ndarray:
        """(6,) displacement in the operator's axes -> (6,) fraction of the largest speed, base frame."""
        config = self.config
        # Continuous at the edge of the deadband: a step there makes small corrections impossible.
        beyond = np.maximum(np.abs(raw) - config.deadband, 0.0) / (1 - config.deadband)
        shaped = np.clip(np.sign(raw) * beyond, -1.0, 1.0)
        linear = self._turn @ shaped[:3] * config.translation_scale
        angular = self._turn @ shaped[3:] * config.rotation_scale
        return np.clip(np.concatenate([linear, angular]), -1.0, 1.0)

    def close(self) -> None:
        self._mouse.close()
