"""SafeDreamer's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from safe_policy_core.methods.dreamer.config import DreamerConfig, like_fosp
from safe_policy_core.methods.dreamer.planner import PlannerConfig


@dataclass(frozen=True)
class SafeDreamerConfig(DreamerConfig):
    """BSRP-Lag by default, the version that FOSP is compared with; planning makes it OSRP."""

    cost_limit: float = 0.0
    """b: largest discounted cost to come."""
    initial_multiplier: float = 0.1
    """Lambda. SafeDreamer begins at 0.01 and learns for a million steps; in a few thousand lambda would stay there."""
    initial_penalty: float = 1e-3
    """Mu, for the same reason; SafeDreamer has 1e-6. With 0.01 lambda was 5 after 400 steps of the tests' point task,
    and the actor stood still."""
    penalty_growth: float = 5e-9
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """Acting by constrained plans, whose courses the actor proposes in part; off by default."""


PRESETS = {
    "small": lambda: like_fosp(SafeDreamerConfig(), "small"),
    "tabletop": lambda: like_fosp(SafeDreamerConfig(), "tabletop", actor_gradient="reinforce"),
    "planning": lambda: like_fosp(SafeDreamerConfig(), "tabletop", actor_gradient="reinforce",
                                  planner=PlannerConfig(candidates=48)),
    "full": lambda: like_fosp(SafeDreamerConfig(), "full", initial_multiplier=0.01, initial_penalty=1e-6)}
"""Name -> function that makes the configuration. `planning` is `tabletop` with OSRP."""
