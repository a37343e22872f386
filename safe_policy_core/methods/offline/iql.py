"""IQL: offline reinforcement learning with implicit Q-learning (Kostrikov et al. 2022).

The actor is this project's bounded Gaussian, whose deviation depends on the state (the paper's does not).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.fosp.equations import expectile_loss
from safe_policy_core.methods.offline.config import IqlConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.mlp import relu_mlp
from safe_policy_core.networks.paired import TwinCritics


def advantage_weight(advantage: Tensor, temperature: float, largest: float) -> Tensor:
    """exp(beta (Q - V)), at most `largest` (eq. 7)."""
    return (temperature * advantage).exp().clamp(max=largest)


class IqlModel(OfflineModel):
    """A Gaussian actor, two critics and a value."""

    def __init__(self, specs: Specs, config: IqlConfig) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 1, config.target_rate)
        self.value = relu_mlp(self.inputs, 1, config.units, config.layers)
        self.actor = GaussianActor(self.inputs, self.action_dim, config.units, config.layers)

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = normal_noise(distribution.mean.shape, generator, state.device)
        return Decision(distribution.mode if deterministic else distribution.sample(normal),
                        self.value(state).squeeze(-1))


class IqlLearner(OfflineLearner):
    """Values from recorded actions alone; the actor imitates the better ones."""

    method = "iql"
    config_class = IqlConfig
    model_class = IqlModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"value": (model.value, config.learning_rate), "critics": (model.critics, config.learning_rate),
                "actor": (model.actor, config.actor_learning_rate)}

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        with torch.no_grad():
            recorded = model.critics(steps.state, steps.action, slow=True)[0].amin(0)
            next_value = model.value(steps.next_state).squeeze(-1)
        value = model.value(steps.state).squeeze(-1)
        value_loss = expectile_loss(recorded, value, config.expectile).mean()  # eq. 5
        critic_loss = model.critics.loss(model.critics(steps.state, steps.action),
                                         (steps.reward + steps.discount * next_value).unsqueeze(0))  # eq. 6
        weight = advantage_weight(recorded - value.detach(), config.temperature, config.largest_weight)
        actor_loss = -(weight * model.actor(steps.state).log_probability(steps.action)).mean()  # eq. 7
        for name, loss in (("value", value_loss), ("critics", critic_loss), ("actor", actor_loss)):
            self.optimisers[name].step(loss)
        model.critics.update_targets()
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(),
                "value_loss": value_loss.detach(), "value": value.detach().mean(), "weight": weight.mean()}
