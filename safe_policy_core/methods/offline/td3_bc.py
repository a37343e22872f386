"""TD3+BC: a minimalist approach to offline reinforcement learning (Fujimoto and Gu, 2021)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import Td3BcConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps
from safe_policy_core.networks.mlp import relu_mlp
from safe_policy_core.networks.paired import TwinCritics, follow


def imitating_loss(value: Tensor, action: Tensor, recorded: Tensor, behaviour: float) -> Tensor:
    """Eq. 3 as a loss: (pi(s) - a)^2 - lambda Q(s, pi(s)), with lambda = alpha / mean |Q| (eq. 5)."""
    weight = behaviour / value.abs().mean().detach().clamp(min=1e-6)
    return (action - recorded).square().mean() - weight * value.mean()


class Td3BcModel(OfflineModel):
    """A deterministic actor and two critics."""

    def __init__(self, specs: Specs, config: Td3BcConfig) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 1, config.target_rate)
        self.actor = relu_mlp(self.inputs, self.action_dim, config.units, config.layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        action = self.actor(state).tanh()
        return Decision(action, self.critics(state, action)[0].amin(0))


class Td3BcLearner(OfflineLearner):
    """Clipped double Q-learning with smoothed target actions; the actor moves at every second step (TD3)."""

    method = "td3_bc"
    config_class = Td3BcConfig
    model_class = Td3BcModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        return {"critics": (self.model.critics, self.config.learning_rate),
                "actor": (self.model.actor, self.config.actor_learning_rate)}

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        with torch.no_grad():
            noise = (config.target_noise * torch.randn_like(steps.action)).clamp(
                -config.largest_target_noise, config.largest_target_noise)
            action = (model.target_actor(steps.next_state).tanh() + noise).clamp(-1, 1)
            target = steps.reward + steps.discount * model.critics(steps.next_state, action, slow=True)[0].amin(0)
        loss = model.critics.loss(model.critics(steps.state, steps.action), target.unsqueeze(0))
        self.optimisers["critics"].step(loss)
        metrics = {"critic_loss": loss.detach(), "value": target.mean()}
        if self.step % config.actor_every == 0:
            action = model.actor(steps.state).tanh()
            actor_loss = imitating_loss(model.critics(steps.state, action)[0, 0], action, steps.action,
                                        config.behaviour)
            self.optimisers["actor"].step(actor_loss)
            model.critics.update_targets()
            follow(model.target_actor, model.actor, config.target_rate)
            metrics["actor_loss"] = actor_loss.detach()
        return metrics
