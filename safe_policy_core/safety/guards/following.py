"""Whether the arm goes where its target is."""

from __future__ import annotations

import math

import numpy as np

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict


class FollowingGuard:
    """At rest the arm must come near its target.

    One that does not is held by something, or refuses the target as too far away while the gate, armed, waits for it.
    farthest [m]: from a target at rest. settling_time [s]: until it must have come so near.
    """

    def __init__(self, farthest: float, settling_time: float) -> None:
        self._farthest, self._settling_time = farthest, settling_time
        self._away_since, self._distance = math.inf, 0.0

    def compare(self, lead: np.ndarray, velocity: np.ndarray, now: float) -> None:
        """lead (6,): from the measured pose to the target. velocity (6,): of the target."""
        self._distance = float(np.linalg.norm(lead[:3]))
        if self._distance <= self._farthest or velocity.any():
            self._away_since = math.inf
        else:
            self._away_since = min(self._away_since, now)

    def check(self, now: float, drive: Drive) -> Verdict:
        if now - self._away_since < self._settling_time:
            return CLEAR
        return Verdict("not_following", f"the arm rests {self._distance:.3f} m from its target; free it, and arm anew")

    def cause(self, now: float) -> str:
        return ""  # the target begins at the arm again

    def begin(self, now: float) -> None:
        self._away_since = math.inf
