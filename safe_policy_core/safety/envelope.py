"""The last word on the target's motion: bounded acceleration, and always room to stop.

A predictive safety filter with braking as its backup (Wabersich and Zeilinger, 2021, reduced to a point with
bounded acceleration). A velocity passes only if straight braking after it stays inside every limit. Braking at
once is then always inside, by induction, whatever is commanded: filters before this one may be wrong, and the
target still neither leaves its box nor brakes harder than it may.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from safe_policy_core.geometry import Pose, multiply, quaternion_from_rotation_vector
from safe_policy_core.safety.filters.filter import norm
from safe_policy_core.safety.filters.workspace import enters
from safe_policy_core.safety.gate_config import EnvelopeLimits
from safe_policy_core.safety.motion import MotionLimits

SHARES = (0.5, 0.25, 0.125)
"""Of the way from braking to what was asked for, tried when all of it leaves no room to stop."""


class Envelope:
    """The commanded pose and its velocity. `reset` before the first `advance`."""

    def __init__(self, limits: MotionLimits, envelope: EnvelopeLimits) -> None:
        self._nominal = np.asarray(limits.nominal_quaternion)
        self._low, self._high = np.array(limits.workspace_low), np.array(limits.workspace_high)
        self._max_tilt = limits.max_tilt
        self._keep_out = envelope.inflated()
        self._linear = envelope.max_translation_acceleration
        self._angular = envelope.max_rotation_acceleration
        self._position, self._quaternion = np.zeros(3), self._nominal
        self._tilt = limits.max_tilt
        self._vector = np.zeros(6)
        self.velocity = np.zeros(6)
        self.braked = False

    def reset(self, pose: Pose) -> None:
        """The target starts here, at rest. From outside a limit it can only come nearer to it."""
        self._position, self._quaternion = pose.position.astype(float), pose.quaternion
        self._vector = pose.to_vector(self._nominal)
        self._tilt = max(self._max_tilt, norm(self._vector[3:]))
        self.velocity = np.zeros(6)

    def halt(self) -> None:
        """The target stood still: this process hung, and what it goes on with begins at rest."""
        self.velocity = np.zeros(6)

    @property
    def pose(self) -> Pose:
        return Pose(self._position.copy(), self._quaternion.copy())

    @property
    def vector(self) -> np.ndarray:
        """(6,) pose vector [m, rad]."""
        return self._vector.copy()

    def horizon(self, velocity: np.ndarray, dt: float, top: tuple[float, float]) -> tuple[float, float]:
        """(linear, angular) time [s] that times the velocity is the way to rest, one `dt` of it unbraked.

        velocity (6,): what is asked for, of which at most the speeds `top` [m/s, rad/s] count.
        """
        return (dt + min(norm(velocity[:3]), top[0]) / (2 * self._linear),
                dt + min(norm(velocity[3:]), top[1]) / (2 * self._angular))

    def advance(self, velocity: np.ndarray, dt: float) -> str:
        """Moves the target for `dt` [s], as near to `velocity` (6,) as it may. Returns what limited it, or ""."""
        self.braked = False
        linear = self._admit(velocity[:3], self.velocity[:3], dt, self._linear, self._translation_fits)
        angular = self._admit(velocity[3:], self.velocity[3:], dt, self._angular, self._rotation_fits)
        reason = "envelope" if self.braked else ""
        if not reason and (np.abs(linear - velocity[:3]).max() > 1e-9 or np.abs(angular - velocity[3:]).max() > 1e-9):
            reason = "acceleration"
        self.velocity = np.concatenate([linear, angular])
        low, high = np.minimum(self._low, self._position), np.maximum(self._high, self._position)
        self._position = np.minimum(np.maximum(self._position + linear * dt, low), high)  # rounding errors alone
        if angular.any():
            self._quaternion = self._turned(angular, dt)
        self._vector = Pose(self._position, self._quaternion).to_vector(self._nominal)
        if self._tilt > self._max_tilt:
            self._tilt = max(self._max_tilt, min(self._tilt, max(self._tilt_of(self._quaternion),
                                                                 self._tilt_of(self._stopped(angular, 0.0)))))
        return reason

    def _admit(self, wanted: np.ndarray, present: np.ndarray, dt: float, acceleration: float,
               fits: Callable[[np.ndarray, float], bool]) -> np.ndarray:
        change, reach = wanted - present, acceleration * dt
        length = norm(change)
        candidate = wanted if length <= reach else present + change * (reach / length)
        if fits(candidate, dt):
            return candidate.copy()
        self.braked = True
        speed = norm(present)
        brake = present * max(0.0, 1 - reach / speed) if speed > 0 else np.zeros(3)
        for share in SHARES:
            # Between two velocities that are within reach lie only such as are.
            if fits(between := brake + share * (candidate - brake), dt):
                return between
        return brake

    def _translation_fits(self, velocity: np.ndarray, dt: float) -> bool:
        speed = norm(velocity)
        if speed == 0.0:
            return True
        way = velocity * (dt + speed / (2 * self._linear))
        for end, here, low, high in zip((self._position + way).tolist(), self._position.tolist(), self._low.tolist(),
                                        self._high.tolist(), strict=True):
            if not min(low, here) <= end <= max(high, here):
                return False
        return not any(enters(self._position, way, low, high) for low, high in self._keep_out)

    def _rotation_fits(self, velocity: np.ndarray, dt: float) -> bool:
        # On the way of a rotation about a fixed axis the tilt is largest at one of its ends.
        return not velocity.any() or self._tilt_of(self._stopped(velocity, dt)) <= self._tilt

    def _stopped(self, velocity: np.ndarray, dt: float) -> np.ndarray:
        return self._turned(velocity, dt + norm(velocity) / (2 * self._angular))

    def _turned(self, velocity: np.ndarray, seconds: float) -> np.ndarray:
        turned = multiply(quaternion_from_rotation_vector(velocity * seconds), self._quaternion)
        return turned / norm(turned)

    def _tilt_of(self, quaternion: np.ndarray) -> float:
        x, y, z, w = multiply(quaternion, self._nominal * (-1, -1, -1, 1)).tolist()
        return 2 * math.atan2(math.sqrt(x * x + y * y + z * z), abs(w))
