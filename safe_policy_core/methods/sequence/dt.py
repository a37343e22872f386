"""DT: the decision transformer (Chen et al. 2021), conditioned on the return alone."""

from __future__ import annotations

from safe_policy_core.methods.sequence.config import DtConfig
from safe_policy_core.methods.sequence.learner import SequenceLearner


class DtLearner(SequenceLearner):
    """The shared conditional transformer without costs, by squared errors (QPT eq. 3)."""

    method = "dt"
    config_class = DtConfig
