"""The cloned policy acting."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.dspo.features import FeatureMap


class DspoPolicy(Policy):
    """The imitated action. It has no memory and draws nothing."""

    def __init__(self, features: FeatureMap, actor: nn.Module, specs: Specs, device: torch.device | str = "cpu"
                 ) -> None:
        self.specs = specs
        self._features, self._actor, self._device = features, actor, torch.device(device)

    def reset(self, seed: int) -> None:
        """Nothing to clear."""

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        arrays = self.specs.validate_observation(observation)
        states = self._features.array({name: array[None] for name, array in arrays.items()})
        action = self._actor(torch.as_tensor(states, device=self._device)).mode
        return ActionDecision(action[0].cpu().numpy().astype(np.float32))
