"""SafeDreamer: DreamerV3 with a cost critic, an augmented Lagrangian and constrained planning."""

from safe_policy_core.methods.safe_dreamer.config import SafeDreamerConfig
from safe_policy_core.methods.safe_dreamer.learner import SafeDreamerLearner
from safe_policy_core.methods.safe_dreamer.policy import SafeDreamerPolicy

__all__ = ["SafeDreamerConfig", "SafeDreamerLearner", "SafeDreamerPolicy"]
