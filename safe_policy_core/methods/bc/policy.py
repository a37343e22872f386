"""Behaviour cloning acting."""

from __future__ import annotations

import numpy as np
import torch

from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.bc.model import BcModel


class BcPolicy(Policy):
    """The mean of the imitated action; not deterministic, a draw where the deviation was learned ("likelihood")."""

    def __init__(self, model: BcModel, specs: Specs, sampling: bool, device: torch.device | str = "cpu") -> None:
        self.specs = specs
        self._model, self._sampling, self._device = model, sampling, torch.device(device)
        self._generator = torch.Generator(self._device)

    def reset(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        arrays = self.specs.validate_observation(observation)
        distribution = self._model({name: torch.as_tensor(array, device=self._device).unsqueeze(0)
                                    for name, array in arrays.items()})
        action = distribution.mode
        if self._sampling and not deterministic:
            action = distribution.sample(torch.randn(action.shape, generator=self._generator, device=self._device))
        return ActionDecision(action[0].cpu().numpy().astype(np.float32))
