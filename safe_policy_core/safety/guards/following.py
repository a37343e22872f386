"""Whether the arm goes where its target is."""

from __future__ import annotations

import math

import numpy as np

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict

WAY_BACK_TIME = 0.5
"""[s] in which a target goes back to an arm that cannot come to it."""


class FollowingGuard:
    """At rest the arm must come near its target.

    One that does not leans on something, or refuses the target as too far away while the gate, armed, waits for it.
    While nobody asks for motion the target goes back to the arm, so that it presses on nothing; one that is still
    asked to go on, or whose target cannot come back to it, is given up.
    farthest [m]: from a target at rest. settling_time [s]: until it must have come so near; the target goes back after
    half of it.
    """

    def __init__(self, farthest: float, settling_time: float) -> None:
        self._farthest, self._settling_time = farthest, settling_time
        self._away_since, self._distance = math.inf, 0.0
        self._lead = np.zeros(6)
        self._returning = False

    def compare(self, lead: np.ndarray, velocity: np.ndarray, now: float) -> None:
        """lead (6,): from the measured pose to the target. velocity (6,): of the target."""
        self._lead, self._distance = lead, float(np.linalg.norm(lead[:3]))
        if self._distance <= self._farthest or velocity.any():
            self._away_since = math.inf
        else:
            self._away_since = min(self._away_since, now)

    def way_back(self, now: float) -> np.ndarray:
        """(6,) twist [m/s, 0] that takes a target which nobody moves back to the arm; zero where it may stay."""
        self._returning = self._distance > self._farthest / 2 and (
            self._returning or now - self._away_since >= self._settling_time / 2)
        return np.concatenate([-self._lead[:3] / WAY_BACK_TIME, np.zeros(3)]) if self._returning else np.zeros(6)

    def check(self, now: float, drive: Drive) -> Verdict:
        if now - self._away_since < self._settling_time:
            return CLEAR
        return Verdict("not_following", f"the arm rests {self._distance:.3f} m from its target; free it, and arm anew")

    def cause(self, now: float) -> str:
        return ""  # the target begins at the arm again

    def begin(self, now: float) -> None:
        self._away_since = math.inf
        self._returning = False
