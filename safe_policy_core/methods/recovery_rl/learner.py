"""Recovery RL (Thananjeyan et al. 2021), the model-based version of FOSP's Appendix F, on FOSP's world model.

Q^c learns the discounted probability of a violation; the task policy acts while it is small, model predictive control
lowers it otherwise. Deviations from Appendix F:
- The task policy learns by Dreamer's actor-critic in imagination, not by SAC; the world model is in the VAE's place.
- The target takes whether there was a cost, not its size, and stops at the end of an episode.
- Q^c is the larger of two networks, with slow copies as targets. It learns from recorded and from imagined steps: of
  the task policy's own actions, about which it is asked, the recorded ones say little.
- Plans are rated by imagined costs and by Q^c of the task policy's action behind them, not by Q^c of every action along
  them: a planner finds those about which Q^c is wrong (seen on the tests' point task: a touch in every episode).
"""

from __future__ import annotations

import torch
from torch import Tensor

from safe_policy_core.methods.dreamer.learner import DreamerLearner, Experience
from safe_policy_core.methods.recovery_rl.config import RecoveryRlConfig
from safe_policy_core.methods.recovery_rl.model import RecoveryRlModel
from safe_policy_core.methods.recovery_rl.policy import RecoveryRlPolicy
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.world_model import ImaginedSteps, RealSteps


def risk_target(violated: Tensor, goes_on: Tensor, next_risk: Tensor, discount: float) -> Tensor:
    """c + (1 - c) gamma_c Q^c(s_{t+1}, a_{t+1}) of Appendix F; c and `goes_on` may be probabilities."""
    return violated + (1 - violated) * discount * goes_on * next_risk


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

    def risk_loss(self, real: RealSteps, imagined: ImaginedSteps) -> tuple[Tensor, Tensor]:
        """Squared errors of both networks to the task policy's risk, and the mean target of recorded steps."""
        target = self._targets(real.next_features, (real.cost > 0).float(), (~real.next_terminal).float())
        critic = self.model.risk_critic
        loss = real.mean(critic.loss(critic.outputs(real.features, real.action), target))
        foreseen = self._targets(imagined.features[1:], imagined.cost.clamp(max=1), imagined.continues)
        outputs = critic.outputs(imagined.features[:-1], imagined.action)
        return loss + imagined.mean(critic.loss(outputs, foreseen)), real.mean(target)

    @torch.no_grad()
    def _targets(self, arrived: Tensor, violated: Tensor, goes_on: Tensor) -> Tensor:
        distribution = self.model.actor(arrived)
        normal = torch.randn(distribution.mean.shape, generator=self.generator, device=self.device)
        following = self.model.risk_critic(arrived, distribution.sample(normal), slow=True).clamp(0, 1)
        return risk_target(violated, goes_on, following, self.config.risk_discount)

    def _learn_more(self, experience: Experience) -> tuple[dict[str, Tensor], dict[str, float]]:
        loss, target = self.risk_loss(experience.real, experience.imagined)
        norm = self.optimisers["risk"].step(loss, experience.context)
        self.model.risk_critic.update_targets()
        return {"risk/loss": loss, "risk/target": target}, {"risk": norm}
