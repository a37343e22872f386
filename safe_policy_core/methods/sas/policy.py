"""A decision transformer that aligns itself at the start of every episode, and then acts as it always does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.interfaces import ActionDecision, Observation, Policy
from safe_policy_core.methods.sas.alignment import Alignment, align
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.model import SasModel
from safe_policy_core.methods.sequence.policy import SequencePolicy


class SasPolicy(Policy):
    """`reset` forgets the prompt of the episode before, `align` makes one from the first observation.

    Who has no time for it in the first control step calls `align` before (`interfaces.Aligns`); otherwise the first
    `act` does. base: the same weights acting without alignment until then. alignment: what it came to in this episode,
    None before.
    """

    def __init__(self, base: SequencePolicy, model: SasModel, config: SasConfig) -> None:
        self.specs, self.base, self.model, self.config = base.specs, base, model, config
        (self._name,) = base.specs.observation
        self._generator = torch.Generator()
        self.alignment: Alignment | None = None

    def reset(self, seed: int) -> None:
        self.base.reset(seed)
        self._generator.manual_seed(seed)
        self.alignment = None

    @torch.inference_mode()
    def align(self, observation: Observation) -> dict[str, Any]:
        """Imagines from the episode's first observation and sets the prompt. Returns what was chosen."""
        model, scales = self.model, self.model.base
        vector = torch.from_numpy(self.specs.validate_observation(observation)[self._name]).to(scales.horizon.device)
        found = self.alignment = align(model, self.config, scales.states(vector), self.targets() * model.units,
                                       self._generator)
        states, actions, to_go = (value[0] for value in found.prompt)
        self.base.prompt(scales.standardiser.inverse(states).cpu().numpy(), actions.cpu().numpy(), to_go.cpu().numpy(),
                          self.config.keep_prompt)
        return found.to_json()

    def targets(self) -> Tensor:
        """(2,) return and cost that the episode asks for, in the data's units."""
        return torch.tensor([self.base.target_return, self.base.target_cost], device=self.model.base.horizon.device)

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        if self.alignment is None:
            self.align(observation)
        return self.base.act(observation, deterministic)

    def observe_executed(self, action: np.ndarray) -> None:
        self.base.observe_executed(action)

    def observe_outcome(self, reward: float, cost: float) -> None:
        self.base.observe_outcome(reward, cost)

    def set_target_cost(self, cost: float | None, target_return: float | None = None) -> None:
        """As for the base (`interfaces.TakesTargets`)."""
        self.base.set_target_cost(cost, target_return)
