"""SafeDreamer (Huang et al. 2023, ICLR 2024): background planning with an augmented Lagrangian (BSRP-Lag).

The baseline of FOSP's Appendix F, whose loss is -E[R + eta H - Psi(C, lambda, mu)] (printed with other signs).
- C is the lambda return of the critic's costs, constrained on average: Delta = C - b for every imagined state. The
  authors' code sums C over the rollout instead.
- lambda and mu begin larger outside the preset `full` (see `SafeDreamerConfig`).
- OSRP's online plans (`SafeDreamerConfig.planner`) act with the same weights; the ranking of plans takes no multiplier.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from safe_policy_core.methods.dreamer.actor_loss import expected
from safe_policy_core.methods.dreamer.learner import DreamerLearner, Experience
from safe_policy_core.methods.safe_dreamer.config import SafeDreamerConfig
from safe_policy_core.methods.safe_dreamer.model import SafeDreamerModel
from safe_policy_core.methods.safe_dreamer.policy import SafeDreamerPolicy
from safe_policy_core.networks.distributions import BoundedGaussian


class SafeDreamerLearner(DreamerLearner):
    """Trains a `SafeDreamerModel`."""

    config_class = SafeDreamerConfig
    method = "safe_dreamer"
    model_class = SafeDreamerModel
    policy_class = SafeDreamerPolicy
    sees_cost = True
    config: SafeDreamerConfig
    model: SafeDreamerModel

    def actor_loss(self, experience: Experience, returns: Mapping[str, Tensor], distribution: BoundedGaussian
                   ) -> tuple[Tensor, dict[str, Tensor]]:
        """Dreamer's loss and Psi. Afterwards the multiplier moves."""
        loss, metrics = super().actor_loss(experience, returns, distribution)
        imagined, limit, lagrangian = experience.imagined, self.config.cost_limit, self.model.lagrangian
        with torch.no_grad():
            values = self.model.cost_critic(imagined.features[:-1])
        likelihood = distribution.draw_log_probability(imagined.action) if self.config.actor_gradient == "reinforce" \
            else None
        penalty = imagined.mean(expected(lagrangian.phi, returns["cost"] - limit, values - limit, likelihood))
        constraint = imagined.mean(returns["cost"] - limit).detach()
        lagrangian.update(constraint)
        return loss + penalty, metrics | {
            "actor/penalty": imagined.mean(lagrangian.phi(returns["cost"] - limit)), "actor/constraint": constraint,
            "lagrangian/multiplier": lagrangian.multiplier}
