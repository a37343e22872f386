"""SafeDreamer acting: the actor, or the best safe plan."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dreamer.planner import Planner
from safe_policy_core.methods.dreamer.policy import DreamerPolicy
from safe_policy_core.methods.safe_dreamer.model import SafeDreamerModel
from safe_policy_core.vision import Surroundings
from safe_policy_core.world_model import LatentState


class SafeDreamerPolicy(DreamerPolicy):
    """As Dreamer's. With a planner the best course acts, drawn from the episode's seed either way."""

    _model: SafeDreamerModel

    def __init__(self, model: SafeDreamerModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        super().__init__(model, specs, device)
        self._planner = Planner(model, model.config.planner) if model.config.planner.candidates else None

    def reset(self, seed: int) -> None:
        super().reset(seed)
        if self._planner is not None:
            self._planner.reset()

    def _decide(self, state: LatentState, around: Surroundings | None, deterministic: bool
                ) -> tuple[Tensor, dict[str, Any]]:
        known = {"cost_value": float(self._model.cost_critic(state.features))}
        if self._planner is None:
            return self._draw(state, deterministic), known
        return self._planner.action(state, around, self._model.rate, self._filter.generator), known
