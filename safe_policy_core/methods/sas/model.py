"""A frozen decision transformer with predictive heads on it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.heads import PredictiveHeads
from safe_policy_core.methods.sas.recorded import RecordedSteps
from safe_policy_core.methods.sequence.model import ROWS_FOR_STATISTICS, SequenceModel, Windows
from safe_policy_core.networks.distributions import SquashedGaussian


class SasModel(nn.Module):
    """base: DT, CDT or QPT, never trained here. heads: what imagining needs beside it. recorded: prompts, or None."""

    def __init__(self, base: SequenceModel, config: SasConfig) -> None:
        super().__init__()
        config.require_room(base.config.length)
        self.base = base.eval().requires_grad_(False)
        self.heads = PredictiveHeads(base.inputs, base.action_dim, base.config.units, config.units, config.latent,
                                     own_actions=not base.config.stochastic)
        self.recorded = self._room(config)

    def train(self, mode: bool = True) -> SasModel:
        """The base stays in evaluation: its dropout would be noise in the features."""
        super().train(mode)
        self.base.eval()
        return self

    def _room(self, config: SasConfig) -> RecordedSteps | None:
        if not config.recorded:
            return None
        return RecordedSteps(config.recorded, self.base.inputs, self.base.action_dim, config.prompt_steps)

    def record(self, dataset: DsrlDataset, config: SasConfig) -> None:
        """Keeps what `config` wants to show of the data, in the place of what was kept before."""
        self.recorded = self._room(config)
        if self.recorded is not None:
            self.recorded.to(self.base.horizon.device).record(dataset, self.base, config)

    @torch.no_grad()
    def measure(self, dataset: DsrlDataset) -> None:
        """Takes the heads' scales from the data."""
        index = np.arange(0, dataset.rows, max(1, dataset.rows // ROWS_FOR_STATISTICS))
        before, after = (self.base.states(torch.as_tensor(rows, device=self.base.horizon.device))
                         for rows in (dataset.observations[index], dataset.next_observations(index)))
        received = torch.as_tensor(np.stack([dataset.rewards[index], dataset.costs[index]], -1), device=before.device)
        self.heads.measure(after - before, received * self.units)

    @property
    def units(self) -> Tensor:
        """(2,): what a reward and a cost of 1 are for the networks."""
        return torch.stack([self.base.return_unit, self.base.cost_unit])

    def actions(self, features: Tensor) -> SquashedGaussian:
        """pi(a_t | z_t)."""
        if self.heads.action is None:
            return self.base.actor.distribution(features)
        return SquashedGaussian(self.heads.action(features))

    @torch.no_grad()
    def features(self, windows: Windows) -> Tensor:
        """z of scaled windows, (B, K, units)."""
        return self.base.actor.features(windows)
