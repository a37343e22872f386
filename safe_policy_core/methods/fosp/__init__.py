"""FOSP: fine-tuning offline safe policies through world models."""

from safe_policy_core.methods.fosp.config import FospConfig
from safe_policy_core.methods.fosp.learner import FospLearner
from safe_policy_core.methods.fosp.policy import FospPolicy

__all__ = ["FospConfig", "FospLearner", "FospPolicy"]
