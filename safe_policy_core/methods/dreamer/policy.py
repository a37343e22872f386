"""DreamerV3 acting: the actor at the filtered latent state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.dreamer.model import DreamerModel
from safe_policy_core.methods.latent_filter import LatentFilter
from safe_policy_core.vision import Surroundings
from safe_policy_core.world_model import LatentState


class DreamerPolicy(Policy):
    """Shares the model's weights with whoever trains it; the recurrent state is its own. Deterministic: the modes."""

    def __init__(self, model: DreamerModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        self.specs, self._model = specs, model
        self._filter = LatentFilter(model.world_model, model.tool_view, specs, torch.device(device))

    def reset(self, seed: int) -> None:
        self._filter.reset(seed)

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        state, around = self._filter.observe(observation, deterministic)
        action, known = self._decide(state, around, deterministic)
        # Until told otherwise the action is taken to run as asked.
        self._filter.acted(action)
        return ActionDecision(action=action[0].cpu().numpy().astype(np.float32),
                              value=float(self._model.reward_critic(state.features)), **known)

    def _decide(self, state: LatentState, around: Surroundings | None, deterministic: bool
                ) -> tuple[Tensor, dict[str, Any]]:
        """The action (1, action_dim) at a state of one row, and further fields of the decision."""
        return self._draw(state, deterministic), {}

    def _draw(self, state: LatentState, deterministic: bool) -> Tensor:
        """The actor's mode, or a draw: (1, action_dim)."""
        distribution = self._model.actor(state.features)
        if deterministic:
            return distribution.mode
        noise = torch.randn(distribution.mean.shape, generator=self._filter.generator, device=distribution.mean.device)
        return distribution.sample(noise)

    def observe_executed(self, action: np.ndarray) -> None:
        """The latent goes on with the action that ran. Raises `SpecError` when it is not of the action spec."""
        self._filter.acted(action)
