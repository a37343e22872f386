"""Recovery RL with a world model: a task policy, and another that takes over where the risk is too large."""

from safe_policy_core.methods.recovery_rl.config import RecoveryRlConfig
from safe_policy_core.methods.recovery_rl.learner import RecoveryRlLearner
from safe_policy_core.methods.recovery_rl.policy import RecoveryRlPolicy

__all__ = ["RecoveryRlConfig", "RecoveryRlLearner", "RecoveryRlPolicy"]
