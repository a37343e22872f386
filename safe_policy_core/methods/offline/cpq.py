"""CPQ: constraints penalised Q-learning (Xu, Zhan and Zhu, AAAI 2022).

A cost critic is trained to give actions outside the data a cost above the limit, and actions whose cost
value is above the limit add nothing to the reward's backup nor to the policy's objective.

OSRL's code computes the cost of those actions by the target network and without gradient, so that its
penalty changes nothing; here it is computed by the critic in training. Only the actions that count are
rated: the encoder alone finds which ones. A value below zero is not lifted to zero by being unsafe (the
paper's rewards are not negative, where both are the same).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import CpqConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps
from safe_policy_core.networks.action_vae import ActionVae, latent_kl
from safe_policy_core.networks.actor import SquashedActor
from safe_policy_core.networks.paired import TwinCritics, follow

LOG_DUAL_RANGE = 5.0


def only_if_safe(value: Tensor, cost: Tensor, limit: float) -> Tensor:
    """1[Q_c <= limit] Q: the constraints penalised Bellman operator's term and the policy's objective."""
    return torch.where(cost <= limit, value, value.clamp(max=0))


class CpqModel(OfflineModel):
    """`log_dual`: the logarithm of the penalty's dual variable alpha."""

    log_dual: Tensor

    def __init__(self, specs: Specs, config: CpqConfig) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 2, config.target_rate)
        self.vae = ActionVae(self.inputs, self.action_dim, config.vae_units)
        self.actor = SquashedActor(self.inputs, self.action_dim, config.units, config.layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.register_buffer("log_dual", torch.zeros(()))

    def values(self, state: Tensor, action: Tensor, slow: bool = False) -> tuple[Tensor, Tensor]:
        """Q: the smaller estimate, and Q_c: the larger one, each (B,)."""
        values = self.critics(state, action, slow)
        return values[0].amin(0), values[1].amax(0)

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = torch.randn(distribution.mean.shape, generator=generator, device=state.device)
        action = distribution.mode if deterministic else distribution.raw_sample(normal).tanh()
        return Decision(action, *self.values(state, action))


class CpqLearner(OfflineLearner):
    """One step of the data's model, the critics, the penalty's dual variable and the actor."""

    method = "cpq"
    config_class = CpqConfig
    model_class = CpqModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"vae": (model.vae, config.vae_learning_rate), "critics": (model.critics, config.learning_rate),
                "actor": (model.actor, config.actor_learning_rate)}

    def targets(self, steps: Steps) -> Tensor:
        """(2, B): r + discount 1[Q_c <= limit] Q and c + discount Q_c at an action of the policy."""
        with torch.no_grad():
            distribution = self.model.target_actor(steps.next_state)
            action = distribution.raw_sample(torch.randn_like(distribution.mean)).tanh()
            value, cost = self.model.values(steps.next_state, action, slow=True)
            value = only_if_safe(value, cost, self.model.cost_threshold)
            return torch.stack([steps.reward + steps.discount * value, steps.cost + steps.discount * cost])

    @torch.no_grad()
    def outside(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """States (M, inputs) and actions (M, action_dim) of the policy that are farthest from the data.

        Of `samples` actions at every state, the `ood_share` with the largest divergence of the latent from its prior.
        """
        distribution = self.model.actor(state)
        shape = (self.config.samples, *distribution.mean.shape)
        action = distribution.raw_sample(torch.randn(shape, device=self.device)).tanh()
        divergence = latent_kl(*self.model.vae.encode(state, action)).flatten()
        chosen = divergence.topk(math.ceil(self.config.ood_share * len(divergence))).indices
        return state[chosen % len(state)], action.flatten(0, 1)[chosen]

    def penalty(self, state: Tensor) -> Tensor:
        """Mean Q_c of actions outside the data, with gradient to the cost critics."""
        return self.model.critics(*self.outside(state))[1].mean()

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        normal = torch.randn(len(steps.state), model.vae.latent_dim, device=self.device)
        vae_loss = model.vae.loss(steps.state, steps.action, normal)
        self.optimisers["vae"].step(vae_loss)

        targets, wanted = self.targets(steps), config.ood_cost * model.cost_threshold
        penalty, dual = self.penalty(steps.state), model.log_dual.exp()
        critic_loss = model.critics.loss(model.critics(steps.state, steps.action), targets)
        self.optimisers["critics"].step(critic_loss - dual * (penalty - wanted))
        with torch.no_grad():
            model.log_dual.add_(config.dual_learning_rate * dual * (wanted - penalty))
            model.log_dual.clamp_(-LOG_DUAL_RANGE, LOG_DUAL_RANGE)

        distribution = model.actor(steps.state)
        action = distribution.raw_sample(torch.randn_like(distribution.mean)).tanh()
        value, cost = model.values(steps.state, action)
        actor_loss = -only_if_safe(value, cost, model.cost_threshold).mean()
        self.optimisers["actor"].step(actor_loss)
        model.critics.update_targets()
        follow(model.target_actor, model.actor, config.target_rate)
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(), "vae_loss": vae_loss.detach(),
                "value": targets[0].mean(), "cost_value": targets[1].mean(), "outside_cost": penalty.detach(),
                "dual": dual, "unsafe_share": (cost > model.cost_threshold).float().mean()}
