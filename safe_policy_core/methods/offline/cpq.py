"""CPQ: constraints penalised Q-learning (Xu, Zhan and Zhu, AAAI 2022).

A cost critic is trained to give actions outside the data a cost above the limit, and actions whose cost
value is above the limit add nothing to the reward's backup nor to the policy's objective.

OSRL's code computes the cost of those actions by the target network and without gradient, so that its
penalty changes nothing; here it is computed by the critic in training. At every state the action that is
farthest from the data counts (OSRL: the farthest quarter over all states), and only until its cost is as
high as wanted: a linear penalty, once it has a gradient, drives the cost of everything up without end faster
than its dual variable falls. What is wanted is a multiple of the limit, and where that is below `LEAST_LIMIT`, of that:
of a limit of 0 it would be nothing. A value below zero is not lifted to zero by being unsafe (the paper's rewards
are not negative, where both are the same). The policy's objective has no gradient where all of its actions are
unsafe, and a policy that got there stays: `recovery` makes it descend the cost there (0: the paper).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import CpqConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.action_vae import ActionVae, latent_kl
from safe_policy_core.networks.actor import SquashedActor
from safe_policy_core.networks.distributions import SquashedGaussian
from safe_policy_core.networks.paired import TwinCritics, follow

LOG_DUAL_RANGE = 5.0
LEAST_LIMIT = 1.0
"""Cost of an episode, that of one costly step in most tasks."""
COST = 1
"""Number of the critics' signal."""


def only_if_safe(value: Tensor, cost: Tensor, limit: float) -> Tensor:
    """1[Q_c <= limit] Q: the constraints penalised Bellman operator's term and the policy's objective."""
    return torch.where(cost <= limit, value, value.clamp(max=0))


class CpqModel(OfflineModel):
    """`log_dual`: the logarithm of the penalty's dual variable alpha."""

    log_dual: Tensor

    def __init__(self, specs: Specs, config: CpqConfig) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 2, config.target_rate)
        self.vae = ActionVae(self.inputs, self.action_dim, config.vae_units, config.kl_weight)
        self.actor = SquashedActor(self.inputs, self.action_dim, config.units, config.layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.register_buffer("log_dual", torch.zeros(()))

    def values(self, state: Tensor, action: Tensor, slow: bool = False) -> tuple[Tensor, Tensor]:
        """Q: the smaller estimate, and Q_c: the larger one, each (B,)."""
        values = self.critics(state, action, slow)
        return values[0].amin(0), values[1].amax(0)

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = normal_noise(distribution.mean.shape, generator, state.device)
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

    @property
    def wanted_cost(self) -> float:
        """Cost value, discounted, up to which actions outside the data are raised."""
        return self.config.outside_cost * max(self.model.cost_threshold, self.model.discounted_cost(LEAST_LIMIT))

    def targets(self, steps: Steps) -> Tensor:
        """(2, B): r + discount 1[Q_c <= limit] Q and c + discount Q_c at an action of the policy."""
        with torch.no_grad():
            distribution = self.model.target_actor(steps.next_state)
            action = distribution.raw_sample(torch.randn_like(distribution.mean)).tanh()
            value, cost = self.model.values(steps.next_state, action, slow=True)
            value = only_if_safe(value, cost, self.model.cost_threshold)
            return torch.stack([steps.reward + steps.discount * value, steps.cost + steps.discount * cost])

    @torch.no_grad()
    def outside(self, state: Tensor, distribution: SquashedGaussian) -> Tensor:
        """(B, action_dim): at every state, of `samples` actions of the policy the one farthest from the data.

        That is the one whose latent diverges most from its prior.
        """
        shape = (self.config.samples, *distribution.mean.shape)
        action = distribution.raw_sample(torch.randn(shape, device=self.device)).tanh()
        farthest = latent_kl(*self.model.vae.encode(state, action)).argmax(0)
        return action.gather(0, farthest.view(1, -1, 1).expand(1, -1, shape[-1]))[0]

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        normal = torch.randn(len(steps.state), model.vae.latent_dim, device=self.device)
        vae_loss = model.vae.loss(steps.state, steps.action, normal)
        self.optimisers["vae"].step(vae_loss)

        distribution, limit = model.actor(steps.state), model.cost_threshold
        targets, wanted, dual = self.targets(steps), self.wanted_cost, model.log_dual.exp()
        outside = model.critics.of(COST, steps.state, self.outside(steps.state, distribution))
        penalty = (wanted - outside).clamp(min=0).mean()
        critic_loss = model.critics.loss(model.critics(steps.state, steps.action), targets)
        self.optimisers["critics"].step(critic_loss + dual * penalty)
        with torch.no_grad():
            model.log_dual.add_(config.dual_learning_rate * dual * (wanted - outside.mean()))
            model.log_dual.clamp_(-LOG_DUAL_RANGE, LOG_DUAL_RANGE)

        action = distribution.raw_sample(torch.randn_like(distribution.mean)).tanh()
        value, cost = model.values(steps.state, action)
        objective = only_if_safe(value, cost, limit) - config.recovery * (cost - limit).clamp(min=0)
        actor_loss = -objective.mean()
        self.optimisers["actor"].step(actor_loss)
        model.critics.update_targets()
        follow(model.target_actor, model.actor, config.target_rate)
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(), "vae_loss": vae_loss.detach(),
                "value": targets[0].mean(), "cost_value": targets[1].mean(), "outside_cost": outside.detach().mean(),
                "dual": dual, "unsafe_share": (cost > limit).float().mean()}
