"""Recovery RL acting: the task policy's action, or one that lowers the risk when that is too large."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dreamer.planner import Planner
from safe_policy_core.methods.dreamer.policy import DreamerPolicy
from safe_policy_core.methods.recovery_rl.model import RecoveryRlModel
from safe_policy_core.vision import Surroundings
from safe_policy_core.world_model import LatentState


class RecoveryRlPolicy(DreamerPolicy):
    """`chosen_policy` is "task" or "recovery"; `violation_probability` is Q^c of the action that is taken."""

    _model: RecoveryRlModel

    def __init__(self, model: RecoveryRlModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        super().__init__(model, specs, device)
        self._planner = Planner(model, model.config.planner)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._planner.reset()

    def _decide(self, state: LatentState, around: Surroundings | None, deterministic: bool
                ) -> tuple[Tensor, dict[str, Any]]:
        model, chosen = self._model, "task"
        action = self._draw(state, deterministic)
        risk = float(model.risk(state.features, action))
        if risk > model.config.risk_threshold:
            chosen = "recovery"
            action = self._planner.action(state, around, model.rate, self._filter.generator)
            risk = float(model.risk(state.features, action))
        else:
            # The rest of a recovery that is over is no place to begin the next one.
            self._planner.reset()
        return action, {"violation_probability": risk, "cost_value": risk, "chosen_policy": chosen}
