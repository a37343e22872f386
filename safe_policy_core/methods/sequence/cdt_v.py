"""CDT-V: CDT on costs that RGM found, DSPO's baseline for data without cost labels (its appendix on baselines).

RGM corrects rewards until acting by them looks like the safe demonstrations; by how much a step's reward
was lowered is its cost. CDT then learns from these costs, and asks for the mean cost of the demonstrations.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import SequenceStore
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.demonstrations import DemonstrationSource
from safe_policy_core.methods.offline.rgm import RgmLearner, RgmModel
from safe_policy_core.methods.sequence.config import CdtVConfig
from safe_policy_core.methods.sequence.learner import SequenceLearner
from safe_policy_core.methods.sequence.model import SequenceModel
from safe_policy_core.methods.sequence.policy import SequencePolicy
from safe_policy_core.training.steps import OFFLINE, take_step


class CdtVModel(SequenceModel):
    """rgm: finds the costs. demonstrated_cost: of a demonstration, mean."""

    demonstrated_cost: Tensor

    def __init__(self, specs: Specs, config: CdtVConfig) -> None:
        super().__init__(specs, config)
        self.rgm = RgmModel(specs, config.rgm)
        self.register_buffer("demonstrated_cost", torch.zeros(()))


class CdtVPolicy(SequencePolicy):
    """Asks for the cost of the demonstrations, where nobody asks for another."""

    _model: CdtVModel

    @property
    def _trained_cost(self) -> float:
        return float(self._model.demonstrated_cost)


class CdtVLearner(SequenceLearner):
    """CDT on the dataset under RGM's costs; those in the dataset serve only where it names no demonstrations."""

    method = "cdt_v"
    config_class = CdtVConfig
    model_class = CdtVModel
    policy_class = CdtVPolicy

    def check_target(self, dataset: DsrlDataset) -> None:
        """Its target is the demonstrations' cost, which is the data's by itself."""

    def data_source(self, dataset: DsrlDataset) -> SequenceStore:
        """Before the first step, trains RGM; later its weights come with the checkpoint."""
        config, rgm = self.config, RgmLearner(self.specs, self.config.rgm, self.seed, self.device)
        source: Any = rgm.data_source(dataset)
        assert isinstance(source, DemonstrationSource)
        if self.step == 0:
            for step in range(1, config.rgm_steps + 1):
                take_step(rgm, source, config.rgm_batch, 1, self.seed, OFFLINE, step)
            self.model.rgm.load_state_dict(rgm.model.state_dict())
        labelled = dataclasses.replace(dataset, costs=self.model.rgm.missing_rewards(dataset))
        if self.step == 0:
            self.model.demonstrated_cost.fill_(float(labelled.cost_returns[source.demonstrations].mean()))
        return super().data_source(labelled)
