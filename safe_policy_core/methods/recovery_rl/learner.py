"""Recovery RL (Thananjeyan et al. 2021), the model-based version of FOSP's Appendix F, on FOSP's world model.

Q^c learns the discounted probability of a violation from recorded steps; the task policy acts while it is small,
model predictive control lowers it otherwise. Deviations from Appendix F:
- The task policy learns by Dreamer's actor-critic in imagination, not by SAC; the world model is in the VAE's place.
- The target's (1 - c) takes whether there was a cost, not its size, and stops at the end of an episode.
- Q^c is the larger of two networks, with slow copies as targets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safe_policy_core.methods.dreamer.learner import DreamerLearner, Experience
from safe_policy_core.methods.recovery_rl.config import RecoveryRlConfig
from safe_policy_core.methods.recovery_rl.model import RecoveryRlModel
from safe_policy_core.methods.recovery_rl.policy import RecoveryRlPolicy
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.world_model import RealSteps


def risk_target(cost: Tensor, terminal: Tensor, next_risk: Tensor, discount: float) -> Tensor:
    """c + (1 - c) gamma_c Q^c(s_{t+1}, a_{t+1}) of Appendix F, with c = 1[cost > 0]."""
    violated = (cost > 0).to(next_risk.dtype)
    return violated + (1 - violated) * discount * (~terminal).to(next_risk.dtype) * next_risk


class RecoveryRlLearner(DreamerLearner):
    """Trains a `RecoveryRlModel`."""

    config_class = RecoveryRlConfig
    method = "recovery_rl"
    model_class = RecoveryRlModel
    policy_class = RecoveryRlPolicy
    sees_cost = True
    config: RecoveryRlConfig
    model: RecoveryRlModel

    def make_optimisers(self) -> dict[str, Optimiser]:
        return super().make_optimisers() | {
            "risk": Optimiser(self.model.risk_critic, self.config.risk_learning_rate, self.config.gradient_clip)}

    def risk_loss(self, real: RealSteps) -> tuple[Tensor, Tensor]:
        """Squared errors of both networks to the task policy's risk, and the mean target."""
        model = self.model
        with torch.no_grad():
            distribution = model.actor(real.next_features)
            normal = torch.randn(distribution.mean.shape, generator=self.generator, device=self.device)
            following = model.risk_critic(real.next_features, distribution.sample(normal), slow=True).clamp(0, 1)
            target = risk_target(real.cost, real.next_terminal, following, self.config.risk_discount)
        outputs = model.risk_critic.outputs(real.features, real.action)
        return real.mean(model.risk_critic.loss(outputs, target)), real.mean(target)

    def _learn_from_recorded(self, experience: Experience) -> tuple[dict[str, Tensor], dict[str, float]]:
        loss, target = self.risk_loss(experience.real)
        norm = self.optimisers["risk"].step(loss, experience.context)
        self.model.risk_critic.update_targets()
        return {"risk/loss": loss, "risk/target": target}, {"risk": norm}
