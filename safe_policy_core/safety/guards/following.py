"""Whether the arm goes where its target is."""

from __future__ import annotations

import math

import numpy as np

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict

WAY_BACK_TIME = 0.5
"""[s] in which a target goes back to an arm that cannot come to it."""
PROGRESS = 0.005
"""[m] An arm that went so far follows, however far ahead its target is."""


class FollowingGuard:
    """At rest the arm must come near its target, and go somewhere when that moves on ahead of it.

    One that does not leans on something, or refuses the target as too far away while the gate, armed, waits for it.
    A target at the limit of its lead is not at rest: it slides around the arm as what is asked for turns. So an arm
    that stays where it is while it is led counts as well.
    While nobody asks for motion the target goes back to the arm, so that it presses on nothing; one that is still
    asked to go on, or whose target cannot come back to it, is given up.
    farthest [m]: from a target at rest. settling_time [s]: until it must have come so near; the target goes back after
    half of it.
    """

    def __init__(self, farthest: float, settling_time: float) -> None:
        self._farthest, self._settling_time = farthest, settling_time
        self._lead, self._distance = np.zeros(6), 0.0
        self._place = np.zeros(3)
        self._at_rest_since = self._stays_since = math.inf
        self._returning = False

    def compare(self, target: np.ndarray, measured: np.ndarray, velocity: np.ndarray, now: float) -> None:
        """target, measured (6,): poses. velocity (6,): of the target."""
        self._lead = target - measured
        self._distance = float(np.linalg.norm(self._lead[:3]))
        away, moves = self._distance > self._farthest, bool(velocity.any())
        self._at_rest_since = min(self._at_rest_since, now) if away and not moves else math.inf
        if away and not self._returning and np.linalg.norm(measured[:3] - self._place) <= PROGRESS:
            self._stays_since = min(self._stays_since, now)
        else:
            self._stays_since, self._place = math.inf, measured[:3]

    def way_back(self, now: float) -> np.ndarray:
        """(6,) twist [m/s, 0] that takes a target which nobody moves back to the arm; zero where it may stay."""
        self._returning = self._distance > self._farthest / 2 and (
            self._returning or now - self._at_rest_since >= self._settling_time / 2)
        return np.concatenate([-self._lead[:3] / WAY_BACK_TIME, np.zeros(3)]) if self._returning else np.zeros(6)

    def check(self, now: float, drive: Drive) -> Verdict:
        self._returning = self._returning and not drive.moving
        if now - min(self._at_rest_since, self._stays_since) < self._settling_time:
            return CLEAR
        return Verdict("not_following", f"the arm rests {self._distance:.3f} m from its target; free it, and arm anew")

    def cause(self, now: float) -> str:
        return ""  # the target begins at the arm again

    def begin(self, now: float) -> None:
        self._at_rest_since = self._stays_since = math.inf
        self._returning = False
