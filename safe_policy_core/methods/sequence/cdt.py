"""CDT: the constrained decision transformer (Liu et al. 2023), conditioned on return and cost."""

from __future__ import annotations

from safe_policy_core.methods.sequence.config import CdtConfig
from safe_policy_core.methods.sequence.learner import SequenceLearner


class CdtLearner(SequenceLearner):
    """The shared conditional transformer with relabelled episodes and a stochastic head."""

    method = "cdt"
    config_class = CdtConfig
