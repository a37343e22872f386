"""How much cost a session may cause."""

from __future__ import annotations

import math

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict


class CostBudget:
    """Counts the onsets of cost labels by their value. Once spent, learned motion is held until `reset`.

    Counted from the labels, which sensors and people give, and not from what the policy's process reports.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.spent = 0.0
        self._levels: dict[str, float] = {}

    def label(self, source: str, value: float) -> None:
        """The cost label of `source` has a new level. A level that is not a number counts as 1."""
        value = value if math.isfinite(value) else 1.0
        self.spent += max(0.0, value - self._levels.get(source, 0.0))
        self._levels[source] = value

    @property
    def exhausted(self) -> bool:
        return self.spent >= self.budget

    def reset(self) -> str:
        """A person allows another budget. Returns a line for the log."""
        spent, self.spent = self.spent, 0.0
        return f"cost {spent:g} of {self.budget:g} forgiven"

    def check(self, now: float, drive: Drive) -> Verdict:
        return Verdict(hold="cost_budget") if self.exhausted and drive.learned else CLEAR

    def cause(self, now: float) -> str:
        return ""  # teleoperation goes on

    def begin(self, now: float) -> None:
        """Arming forgives nothing."""
