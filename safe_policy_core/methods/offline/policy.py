"""A baseline acting."""

from __future__ import annotations

import numpy as np
import torch

from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.offline.model import OfflineModel


class OfflinePolicy(Policy):
    """What the method's model decides, with its values in the units of reward and cost."""

    def __init__(self, model: OfflineModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        self.specs = specs
        self._model, self._device, self._name = model, torch.device(device), next(iter(specs.observation))
        self._generator = torch.Generator()

    def reset(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        array = self.specs.validate_observation(observation)[self._name]
        state = self._model.standardiser(torch.as_tensor(array, device=self._device).unsqueeze(0))
        decision = self._model.decide(state, self._generator, deterministic)
        action = decision.action[0].cpu().numpy().astype(np.float32)
        value, cost = decision.value, decision.cost_value
        return ActionDecision(np.clip(action, self.specs.action.low, self.specs.action.high),
                              None if value is None else float(value / self._model.reward_factor),
                              None if cost is None else float(cost))
