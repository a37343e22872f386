"""What new weights have to pass before they may act: sensible actions, values and violation probabilities.

Judged on observations that stay the same, against the weights that fine-tuning began with, so that a small
change for the worse in every round cannot add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_policy_core.errors import UserError
from safe_policy_core.interfaces import ActionDecision, Observation, Policy

VALUE_MARGIN = 2.0
"""How far new values may leave the range of the first ones, in widths of that range."""
SMALLEST_WIDTH = 1.0
"""A range narrower than one unit of reward or cost counts as one: an untrained critic says 0 everywhere."""
VIOLATION_TOLERANCE = 0.05
"""By how much the mean violation probability may rise."""


class WeightsRejected(UserError):
    """New weights may not act; the message says which number is out of which bounds."""


@dataclass(frozen=True)
class Judgement:
    """What a policy says about the reference observations.

    value, cost_value: (lowest, highest), None when the policy estimates none. violation: mean probability.
    """

    value: tuple[float, float] | None
    cost_value: tuple[float, float] | None
    violation: float | None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Judgement:
        def pair(value: Sequence[float] | None) -> tuple[float, float] | None:
            return None if value is None else (float(value[0]), float(value[1]))

        return cls(pair(data["value"]), pair(data["cost_value"]), data["violation"])


class WeightCheck:
    """Compares policies with the first one on observations that stay the same.

    first: judgement of an earlier session's first weights; None takes that of `policy`.
    """

    def __init__(self, policy: Policy, observations: Sequence[Observation], first: Judgement | None = None,
                 violation_tolerance: float = VIOLATION_TOLERANCE) -> None:
        self._observations, self._tolerance = list(observations), violation_tolerance
        self.first = first or judge(policy, self._observations)

    def require(self, policy: Policy) -> Judgement:
        """Raises `WeightsRejected`, or `SpecError` for an action out of its spec."""
        new = judge(policy, self._observations)
        for name in ("value", "cost_value"):
            old, now = getattr(self.first, name), getattr(new, name)
            if old is None or now is None:
                continue
            room = VALUE_MARGIN * max(old[1] - old[0], abs(old[0]), abs(old[1]), SMALLEST_WIDTH)
            if now[0] < old[0] - room or now[1] > old[1] + room:
                raise WeightsRejected(f"{name} on the reference batch: expected within [{old[0] - room:.3g}, "
                                      f"{old[1] + room:.3g}], got [{now[0]:.3g}, {now[1]:.3g}]")
        if self.first.violation is not None and new.violation is not None \
                and new.violation > self.first.violation + self._tolerance:
            raise WeightsRejected(f"violation probability on the reference batch: expected at most "
                                  f"{self.first.violation + self._tolerance:.3f}, got {new.violation:.3f}")
        return new


def judge(policy: Policy, observations: Sequence[Observation]) -> Judgement:
    """Raises `WeightsRejected` for numbers that are not finite, `SpecError` for an action out of its spec."""
    decisions = []
    for observation in observations:
        for deterministic in (False, True):
            policy.reset(0)
            decision = policy.act(observation, deterministic)
            policy.specs.action.validate(decision.action)
        decisions.append(decision)  # the deterministic one: equal weights are judged equal
    value = _finite(decisions, "value", lambda decision: decision.value)
    cost = _finite(decisions, "cost_value", lambda decision: decision.cost_value)
    violation = _finite(decisions, "violation_probability", lambda decision: decision.violation_probability)
    return Judgement(None if value is None else (float(value.min()), float(value.max())),
                     None if cost is None else (float(cost.min()), float(cost.max())),
                     None if violation is None else float(violation.mean()))


def _finite(decisions: Sequence[ActionDecision], name: str, get: Callable[[ActionDecision], float | None]
            ) -> np.ndarray | None:
    """(number of decisions,), or None where nobody estimates it."""
    numbers = [number for decision in decisions if (number := get(decision)) is not None]
    if not numbers:
        return None
    array = np.array(numbers, float)
    if not np.isfinite(array).all():
        raise WeightsRejected(f"{name} on the reference batch: expected finite numbers, got "
                              f"{np.count_nonzero(~np.isfinite(array))} others")
    return array
