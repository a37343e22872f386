"""Behaviour cloning: the baseline that every other method must beat."""

from safe_policy_core.methods.bc.config import BcConfig
from safe_policy_core.methods.bc.learner import BcLearner
from safe_policy_core.methods.bc.policy import BcPolicy

__all__ = ["BcConfig", "BcLearner", "BcPolicy"]
