"""The cloned policy acting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.dspo.features import FeatureMap


class DspoPolicy(Policy):
    """The imitated action. It has no memory and draws nothing.

    asked: () the return that the actor is told behind the state, of one that is told returns.
    """

    def __init__(self, features: FeatureMap, actor: nn.Module, specs: Specs, device: torch.device | str = "cpu",
                 asked: Tensor | None = None) -> None:
        self.specs, self._asked = specs, asked
        self._features, self._actor, self._device = features, actor, torch.device(device)

    def reset(self, seed: int) -> None:
        """Nothing to clear."""

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        arrays = self.specs.validate_observation(observation)
        features = self._features.array({name: array[None] for name, array in arrays.items()})
        states = torch.as_tensor(features, device=self._device)
        if self._asked is not None:
            states = torch.cat([states, self._asked.expand(1, 1)], 1)
        action = self._actor(states).mode
        return ActionDecision(action[0].cpu().numpy().astype(np.float32))
