"""What BCQ-Lag and BEAR-Lag share: candidates of a policy near the data, chosen by reward less cost.

Both papers let several actions compete by their value. With a cost they compete by Q^r - lambda Q^c,
lambda being the PID controller's multiplier, in the targets as in acting; reward and cost values are those
of the same chosen action. (OSRL takes the largest reward value and, separately, the largest cost value of
ten actions, which is the cost of no policy.) Costs are rated pessimistically: BCQ eq. 13 with the larger
of the two estimates in the place of the smaller one.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.action_vae import ActionVae
from safe_policy_core.networks.lagrangian import PidLagrangian
from safe_policy_core.networks.paired import TwinCritics, soft_clipped


def best_candidate(values: Tensor, multiplier: Tensor) -> tuple[Tensor, Tensor]:
    """(2, N, B) reward and cost values of N candidates -> the values (2, B) and number (B,) of the best of them."""
    best = (values[0] - multiplier * values[1]).argmax(0)
    return values.gather(1, best.expand(2, 1, -1)).squeeze(1), best


class LagrangianModel(OfflineModel):
    """Critics of reward and cost, the data's actions, the multiplier. A subclass adds the actor.

    noise_size: standard normal numbers that one candidate takes.
    """

    noise_size: int

    def __init__(self, specs: Specs, config: Any) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 2, config.target_rate)
        self.vae = ActionVae(self.inputs, self.action_dim, config.vae_units, config.kl_weight)
        self.lagrangian = PidLagrangian(config.gains)

    @abstractmethod
    def draw(self, state: Tensor, normal: Tensor, slow: bool = False) -> Tensor:
        """Actions (N, B, action_dim) of the policy, or of its slow copy, from noise (N, B, noise_size)."""

    def clipped_values(self, values: Tensor) -> Tensor:
        """(2, 2, ...) estimates -> (2, ...): BCQ eq. 13 for reward, and for cost turned round."""
        weight = self.config.soft_clipping
        return torch.stack([soft_clipped(values[0], weight), soft_clipped(values[1], 1 - weight)])

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        """The best of several draws, which every decision makes; `deterministic` is the same."""
        normal = normal_noise((self.config.candidates, len(state), self.noise_size), generator, state.device)
        actions = self.draw(state, normal)
        values, best = best_candidate(self.clipped_values(self.critics(state, actions)), self.lagrangian.multiplier)
        chosen = actions.gather(0, best[None, :, None].expand(1, -1, self.action_dim))[0]
        return Decision(chosen, values[0], values[1])


class LagrangianLearner(OfflineLearner):
    """One step of the data's model, the critics, the actor and the multiplier."""

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"vae": (model.vae, config.vae_learning_rate), "critics": (model.critics, config.learning_rate),
                "actor": (model.actor, config.actor_learning_rate)}

    def targets(self, steps: Steps) -> Tensor:
        """(2, B): r + discount Q^r and c + discount Q^c of the best of several actions at the next state."""
        model = self.model
        normal = torch.randn(self.config.candidates, len(steps.state), model.noise_size, device=self.device)
        with torch.no_grad():
            actions = model.draw(steps.next_state, normal, slow=True)
            values = model.clipped_values(model.critics(steps.next_state, actions, slow=True))
            best, _ = best_candidate(values, model.lagrangian.multiplier)
        return torch.stack([steps.reward, steps.cost]) + steps.discount * best

    def penalised(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(2, 2, B) values of the policy's actions -> mean of lambda (Q^c - limit) - Q^r, and of Q^c - limit.

        The multiplier is renewed first, by the second.
        """
        reward, cost = values[0].amin(0), values[1].amax(0)
        excess = (cost - self.model.cost_threshold).mean()
        self.model.lagrangian.update(excess)
        return self.model.lagrangian.multiplier * excess - reward.mean(), excess.detach()

    @abstractmethod
    def actor_loss(self, steps: Steps) -> tuple[Tensor, dict[str, Any]]:
        """Loss, metrics."""

    @abstractmethod
    def follow(self) -> None:
        """Moves the actor's slow copy."""

    def learn(self, steps: Steps) -> dict[str, Any]:
        model = self.model
        normal = torch.randn(len(steps.state), model.vae.latent_dim, device=self.device)
        vae_loss = model.vae.loss(steps.state, steps.action, normal)
        self.optimisers["vae"].step(vae_loss)
        targets = self.targets(steps)
        values = model.critics(steps.state, steps.action)
        critic_loss = model.critics.loss(values, targets)
        self.optimisers["critics"].step(critic_loss)
        actor_loss, metrics = self.actor_loss(steps)
        self.optimisers["actor"].step(actor_loss)
        model.critics.update_targets()
        self.follow()
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(), "vae_loss": vae_loss.detach(),
                "value": targets[0].mean(), "cost_value": targets[1].mean(), "multiplier": model.lagrangian.multiplier,
                **metrics}
