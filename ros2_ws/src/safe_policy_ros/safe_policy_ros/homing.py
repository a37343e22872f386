"""The twist that drives the commanded pose home."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Homing:
    """A bounded proportional law on the *commanded* pose.

    The gate integrates twists into a command without lag, so the loop converges to the start
    pose to within a fraction of a millimetre whatever the arm's own tracking error is. The arm
    then has `settle_time` to follow.

    gain [1/s]; max_translation_speed [m/s]; max_rotation_speed [rad/s]; position_tolerance [m] and
    rotation_tolerance [rad] of the command; measured_* tolerances of the arm itself; timeout [s].
    """

    gain: float = 4.0
    max_translation_speed: float = 0.12
    max_rotation_speed: float = 0.4
    position_tolerance: float = 0.0005
    rotation_tolerance: float = 0.003
    measured_position_tolerance: float = 0.01
    measured_rotation_tolerance: float = 0.05
    timeout: float = 20.0

    def twist(self, command: np.ndarray, start: np.ndarray) -> np.ndarray:
        """(6,) [m/s, rad/s] from `command` towards `start`, both (6,) pose vectors."""
        velocity = self.gain * (np.asarray(start, float) - np.asarray(command, float))
        for part, limit in ((slice(0, 3), self.max_translation_speed), (slice(3, 6), self.max_rotation_speed)):
            speed = float(np.linalg.norm(velocity[part]))
            if speed > limit:
                velocity[part] *= limit / speed
        return velocity

    def commanded(self, command: np.ndarray, start: np.ndarray) -> bool:
        """Whether the command is home."""
        return _within(command, start, self.position_tolerance, self.rotation_tolerance)

    def arrived(self, measured: np.ndarray, start: np.ndarray) -> bool:
        """Whether the arm is home."""
        return _within(measured, start, self.measured_position_tolerance, self.measured_rotation_tolerance)


def _within(pose: np.ndarray, start: np.ndarray, position: float, rotation: float) -> bool:
    error = np.asarray(pose, float) - np.asarray(start, float)
    return bool(np.linalg.norm(error[:3]) <= position and np.linalg.norm(error[3:]) <= rotation)
