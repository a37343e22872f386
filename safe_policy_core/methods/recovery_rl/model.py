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
        """For the planner: minus the sum of the risks along each course (N,), and no cost."""
        risk = (courses.weight[:-1] * self.risk(courses.features[:-1], courses.actions)).sum(0)
        return -risk, torch.zeros_like(risk)
