"""All networks of Recovery RL."""

from __future__ import annotations

import torch
from torch import Tensor

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dreamer.model import DreamerModel
from safe_policy_core.methods.dreamer.planner import Courses
from safe_policy_core.methods.recovery_rl.config import RecoveryRlConfig
from safe_policy_core.networks.critic import Critic


class RecoveryRlModel(DreamerModel):
    """Dreamer's model, whose actor is the task policy, with a critic of risk."""

    config: RecoveryRlConfig

    def __init__(self, specs: Specs, config: RecoveryRlConfig) -> None:
        super().__init__(specs, config)
        self.risk_critic = Critic(self.feature_size, specs.action.shape[0], config.units, config.layers,
                                  pessimism="max", two_hot=False, target_rate=config.slow_rate)

    def risk(self, features: Tensor, action: Tensor) -> Tensor:
        """Q^c in [0, 1]: (..., features), (..., action_dim) -> (...)."""
        return self.risk_critic(features, action).clamp(0, 1)

    def rate(self, courses: Courses) -> tuple[Tensor, Tensor]:
        """For the planner: minus the risk of each course (N,), and no cost.

        Imagined costs, and Q^c of the task policy's action behind the last step.
        """
        last, weight = courses.features[-1], courses.weight
        paid = (weight[:-1] * self.world_model.cost(courses.features[1:]).clamp(max=1)).sum(0)
        risk = paid + weight[-1] * self.risk(last, self.actor(last).mode)
        return -risk, torch.zeros_like(risk)
