"""Recovery RL's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.dreamer.config import DreamerConfig, like_fosp
from safe_policy_core.methods.dreamer.planner import PlannerConfig


@dataclass(frozen=True)
class RecoveryRlConfig(DreamerConfig):
    """The task policy is Dreamer's."""

    risk_discount: float = 0.9
    """Gamma_c of Q^c: a violation that is ten steps away weighs a third."""
    risk_threshold: float = 0.3
    """Epsilon_c: above it the recovery policy acts."""
    risk_learning_rate: float = 3e-4
    planner: PlannerConfig = field(default_factory=lambda: PlannerConfig(candidates=48))
    """The recovery policy: courses of the smallest risk (`cost_limit` has no say here)."""

    def __post_init__(self) -> None:
        if self.planner.candidates < 1:
            raise ConfigurationError(f"planner.candidates: expected at least 1, got {self.planner.candidates}; it is "
                                     "the recovery policy")


PRESETS = {
    "small": lambda: like_fosp(RecoveryRlConfig(), "small"),
    "tabletop": lambda: like_fosp(RecoveryRlConfig(), "tabletop", actor_gradient="reinforce", risk_learning_rate=1e-3),
    "full": lambda: like_fosp(RecoveryRlConfig(), "full", risk_learning_rate=3e-5)}
"""Name -> function that makes the configuration."""
