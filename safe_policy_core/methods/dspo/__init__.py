"""DSPO: diffusion-guided safe policies from data without cost labels."""

from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.learner import DspoLearner
from safe_policy_core.methods.dspo.policy import DspoPolicy

__all__ = ["DspoConfig", "DspoLearner", "DspoPolicy"]
