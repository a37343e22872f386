"""The cost that an episode may have, for policies that take it when they run."""

from __future__ import annotations

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Policy, TakesTargets


def set_target_cost(policy: Policy, cost: float | None, target_return: float | None = None) -> None:
    """The policy's threshold from its next `reset` on; None is that of its training, which every policy has.

    target_return: what to ask for beside it; None: what few of the affordable episodes exceed. Raises
    `ConfigurationError` for numbers out of range, and for a policy whose threshold cannot be changed.
    """
    if cost is None and target_return is not None:
        raise ConfigurationError("target_return: give target_cost too")
    if isinstance(policy, TakesTargets):
        policy.set_target_cost(cost, target_return)
    elif cost is not None:
        raise ConfigurationError(f"target_cost: a policy of kind {type(policy).__name__} has its threshold from "
                                 "training; give none")
