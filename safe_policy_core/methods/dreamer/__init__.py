"""DreamerV3: an actor and a critic that learn in a world model's imagination, without cost."""

from safe_policy_core.methods.dreamer.config import DreamerConfig
from safe_policy_core.methods.dreamer.learner import DreamerLearner
from safe_policy_core.methods.dreamer.policy import DreamerPolicy

__all__ = ["DreamerConfig", "DreamerLearner", "DreamerPolicy"]
