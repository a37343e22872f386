"""Bounds on commanded motion, shared by the safety gate and the fast simulator.

The same integration runs on the arm (100 Hz, inside the gate) and in the direct simulator, so
that a policy meets the same limits in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.geometry import Pose, multiply, quaternion_from_rotation_vector

CONTROL_PERIOD = 0.1
"""Seconds between two actions of a policy."""
GATE_PERIOD = 0.01
"""Seconds between two commands to the arm."""


@dataclass(frozen=True)
class MotionLimits:
    """Limits on the tool's motion, base frame. Every one is required: a limit has no default.

    workspace_low, workspace_high: corners of the box for the tool's position [m].
    nominal_quaternion: (x, y, z, w) orientation from which the tilt is measured.
    max_tilt: largest rotation from the nominal orientation [rad].
    max_translation_speed [m/s], max_rotation_speed [rad/s].
    max_translation_lead [m], max_rotation_lead [rad]: how far the command may run ahead of the
        measured pose, which bounds the force of an impedance controller against an obstruction.
    """

    workspace_low: tuple[float, float, float]
    workspace_high: tuple[float, float, float]
    nominal_quaternion: tuple[float, float, float, float]
    max_tilt: float
    max_translation_speed: float
    max_rotation_speed: float
    max_translation_lead: float
    max_rotation_lead: float

    def __post_init__(self) -> None:
        for name, length in (("workspace_low", 3), ("workspace_high", 3), ("nominal_quaternion", 4)):
            value = np.asarray(getattr(self, name), float)
            if value.shape != (length,) or not np.isfinite(value).all():
                raise ConfigurationError(f"{name}: expected {length} finite numbers, got {getattr(self, name)}")
            object.__setattr__(self, name, tuple(float(x) for x in value))
        for axis, low, high in zip("xyz", self.workspace_low, self.workspace_high, strict=True):
            if not low < high:
                raise ConfigurationError(f"workspace_low/high: expected low < high on {axis}, got {low} and {high} m")
        if abs(np.linalg.norm(self.nominal_quaternion) - 1) > 1e-3:
            raise ConfigurationError(f"nominal_quaternion: expected a unit quaternion, got {self.nominal_quaternion}")
        for name in ("max_tilt", "max_translation_speed", "max_rotation_speed", "max_translation_lead",
                     "max_rotation_lead"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and np.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name}: expected a positive number, got {value!r}")

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> MotionLimits:
        """From a parameter file. Raises `ConfigurationError` naming what is missing or unknown."""
        names = {f.name for f in fields(cls)}
        if missing := names - values.keys():
            raise ConfigurationError(f"safety limits: {', '.join(sorted(missing))} missing; limits have no defaults, "
                                     "set them in the parameter file")
        if unknown := values.keys() - names:
            raise ConfigurationError(f"safety limits: unknown {', '.join(sorted(unknown))}")
        return cls(**values)


def _clip_norm(vector: np.ndarray, limit: float) -> tuple[np.ndarray, bool]:
    norm = math.sqrt(float(vector @ vector))
    return (vector * (limit / norm), True) if norm > limit * (1 + 1e-9) else (vector, False)


class MotionIntegrator:
    """Turns twists into a bounded commanded pose.

    Increments are added to the previous *commanded* pose, not the measured one: adding to the
    measured pose loses the controller's lag at every step and the arm sags under gravity.
    """

    def __init__(self, limits: MotionLimits) -> None:
        self.limits = limits
        self._nominal = np.asarray(limits.nominal_quaternion)
        self._low, self._high = np.array(limits.workspace_low), np.array(limits.workspace_high)
        self._target: np.ndarray | None = None

    def reset(self, measured: Pose) -> None:
        """The command starts where the arm is."""
        self._target = measured.to_vector(self._nominal)

    @property
    def target(self) -> Pose:
        return Pose.from_vector(self.target_vector, self._nominal)

    @property
    def target_vector(self) -> np.ndarray:
        """(6,) commanded pose, as `Pose.to_vector`. Raises `RuntimeError` before `reset`."""
        if self._target is None:
            raise RuntimeError("MotionIntegrator.reset must come first")
        return self._target.copy()

    def advance(self, twist: np.ndarray, dt: float, measured: Pose) -> tuple[str, ...]:
        """Moves the command by `twist` (6,) [m/s, rad/s] for `dt` [s]. Returns what limited it.

        Reasons: translation_speed, rotation_speed, workspace, tilt, translation_lead, rotation_lead.
        """
        if self._target is None:
            raise RuntimeError("MotionIntegrator.reset must come first")
        limits, reasons = self.limits, []
        linear, clipped = _clip_norm(np.asarray(twist[:3], float), limits.max_translation_speed)
        if clipped:
            reasons.append("translation_speed")
        angular, clipped = _clip_norm(np.asarray(twist[3:], float), limits.max_rotation_speed)
        if clipped:
            reasons.append("rotation_speed")
        current = Pose.from_vector(self._target, self._nominal)
        turned = multiply(quaternion_from_rotation_vector(angular * dt), current.quaternion)
        proposed = Pose(current.position + linear * dt, turned).to_vector(self._nominal)
        here = measured.to_vector(self._nominal)
        lead, clipped = _clip_norm(proposed[:3] - here[:3], limits.max_translation_lead)
        if clipped:
            reasons.append("translation_lead")
            proposed[:3] = here[:3] + lead
        lead, clipped = _clip_norm(proposed[3:] - here[3:], limits.max_rotation_lead)
        if clipped:
            reasons.append("rotation_lead")
            proposed[3:] = here[3:] + lead
        boxed = proposed[:3].clip(self._low, self._high)
        if np.abs(boxed - proposed[:3]).max() > 1e-9:
            reasons.append("workspace")
        proposed[:3] = boxed
        proposed[3:], clipped = _clip_norm(proposed[3:], limits.max_tilt)
        if clipped:
            reasons.append("tilt")
        self._target = proposed
        return tuple(reasons)
