"""A decision transformer that aligns itself at the start of every episode, and then acts as it always does.

With recorded prompts it may do so again while it acts (`SasConfig.realign`).
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import ActionDecision, Observation, Policy
from safe_policy_core.methods.sas.alignment import Alignment, align
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.model import SasModel
from safe_policy_core.methods.sas.recorded import Recalled
from safe_policy_core.methods.sequence.policy import SequencePolicy

log = logging.getLogger(__name__)

SEED_OFFSET = 1_000_000_007
"""Of the alignment: with the base's own seed the first actions would have the noise of the courses imagined."""


class SasPolicy(Policy):
    """`reset` forgets the prompt of the episode before, `align` makes one from the first observation.

    Who has no time for it in the first control step calls `align` before (`interfaces.Aligns`); otherwise the first
    `act` does. base: the same weights acting without alignment until then. alignment: what it came to in this episode,
    None before.
    """

    def __init__(self, base: SequencePolicy, model: SasModel, config: SasConfig) -> None:
        if config.realign < 0 or (config.realign and not (config.recorded and config.keep_prompt)):
            raise ConfigurationError(f"realign: expected 0, or with recorded prompts that stay in the context "
                                     f"(recorded, keep_prompt) a number of steps, got {config.realign}")
        if bool(config.recorded) != (model.recorded is not None) or (config.recorded and config.prompts != 1):
            raise ConfigurationError(f"recorded: expected as in training ({'some' if model.recorded else 'no'} steps "
                                     f"are kept) and one prompt, got {config.recorded}, prompts={config.prompts}")
        config.require_room(model.base.config.length)
        learned, shown = model.base.config.prompt_steps, config.prompts * config.prompt_steps
        if learned not in (0, shown):
            log.warning("prompt_steps: the base learned from prompts of %d steps and is shown %d", learned, shown)
        self.specs, self.base, self.model, self.config = base.specs, base, model, config
        (self._name,) = base.specs.observation
        self._generator = torch.Generator()
        self.alignment: Alignment | Recalled | None = None
        self._steps = 0

    def reset(self, seed: int) -> None:
        self.base.reset(seed)
        self._generator.manual_seed(seed + SEED_OFFSET)
        self.alignment, self._steps = None, 0

    @torch.inference_mode()
    def align(self, observation: Observation) -> dict[str, Any]:
        """Sets the prompt for an episode that begins with an observation, or is there now. Returns what was chosen."""
        scales = self.model.base
        vector = torch.from_numpy(self.specs.validate_observation(observation)[self._name]).to(scales.horizon.device)
        found = self.alignment = self._chosen(scales.states(vector))
        states, actions, to_go = (value[0] for value in found.prompt)
        self.base.prompt(scales.standardiser.inverse(states).cpu().numpy(), actions.cpu().numpy(), to_go.cpu().numpy(),
                          self.config.keep_prompt, self.config.told)
        return found.to_json()

    def _chosen(self, state: Tensor) -> Alignment | Recalled:
        if self.model.recorded is None:
            return align(self.model, self.config, state, self.targets() * self.model.units, self._generator)
        if self.config.selection == "random":
            return self.model.recorded.drawn(state, self._generator)
        if not self.config.realign:
            return self.model.recorded.begun_nearest(state, self._generator)
        return self.model.recorded.nearest(state)

    def targets(self) -> Tensor:
        """(2,) return and cost that the episode asks for, in the data's units."""
        return torch.tensor([self.base.target_return, self.base.target_cost], device=self.model.base.horizon.device)

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        again = self.config.realign and self._steps and self._steps % self.config.realign == 0
        if self.alignment is None or again:
            self.align(observation)
        self._steps += 1
        return self.base.act(observation, deterministic)

    def observe_executed(self, action: np.ndarray) -> None:
        self.base.observe_executed(action)

    def observe_outcome(self, reward: float, cost: float) -> None:
        self.base.observe_outcome(reward, cost)

    def set_target_cost(self, cost: float | None, target_return: float | None = None) -> None:
        """As for the base (`interfaces.TakesTargets`)."""
        self.base.set_target_cost(cost, target_return)
