"""CQL: conservative Q-learning (Kumar et al. 2020), CQL(H) on soft actor-critic.

The log-sum-exp over all actions is sampled with importance weights from uniform actions and from the
policy's at this and the next state (appendix F). alpha is fixed; its Lagrangian version is not here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import CqlConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.actor import SquashedActor
from safe_policy_core.networks.distributions import SquashedGaussian
from safe_policy_core.networks.paired import TwinCritics


def log_sum_exp(values: Tensor, log_densities: Tensor) -> Tensor:
    """log of the integral of exp Q over all actions, from values (2, N, B) of draws of known density (N, B)."""
    return (values - log_densities).logsumexp(1) - math.log(values.shape[1])


def draws(distribution: SquashedGaussian, count: int) -> tuple[Tensor, Tensor]:
    """`count` actions (count, B, action_dim) and their log densities (count, B)."""
    raw = distribution.raw_sample(torch.randn(count, *distribution.mean.shape, device=distribution.mean.device))
    return raw.tanh(), distribution.log_probability(raw)


class CqlModel(OfflineModel):
    """A squashed Gaussian actor, two critics, and the entropy's temperature."""

    def __init__(self, specs: Specs, config: CqlConfig) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 1, config.target_rate)
        self.actor = SquashedActor(self.inputs, self.action_dim, config.units, config.layers)
        self.log_temperature = nn.ParameterList([nn.Parameter(torch.zeros(()))])

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = normal_noise(distribution.mean.shape, generator, state.device)
        action = distribution.mode if deterministic else distribution.raw_sample(normal).tanh()
        return Decision(action, self.critics(state, action)[0].amin(0))


class CqlLearner(OfflineLearner):
    """Soft actor-critic whose critics are low where the data have no actions."""

    method = "cql"
    config_class = CqlConfig
    model_class = CqlModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"critics": (model.critics, config.learning_rate), "actor": (model.actor, config.actor_learning_rate),
                "temperature": (model.log_temperature, config.actor_learning_rate)}

    def penalty(self, steps: Steps, recorded: Tensor) -> Tensor:
        """log-sum-exp of Q over actions minus Q of the recorded one (2, B), summed over the critics (eq. 4)."""
        model, count = self.model, self.config.samples
        with torch.no_grad():
            here, here_density = draws(model.actor(steps.state), count)
            there, there_density = draws(model.actor(steps.next_state), count)
        uniform = torch.empty_like(here).uniform_(-1, 1)
        densities = torch.cat([torch.full_like(here_density, -model.action_dim * math.log(2)), here_density,
                               there_density])
        values = model.critics(steps.state, torch.cat([uniform, here, there]))[0]
        return (log_sum_exp(values, densities) - recorded).mean(-1).sum()

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        action, log_density = draws(model.actor(steps.state), 1)
        temperature = model.log_temperature[0]
        temperature_loss = -(temperature * (log_density.detach() - model.action_dim)).mean()
        actor_loss = (temperature.exp().detach() * log_density - model.critics(steps.state, action)[0].amin(0)).mean()

        with torch.no_grad():
            following, _ = draws(model.actor(steps.next_state), 1)
            target = steps.reward + steps.discount * model.critics(steps.next_state, following[0], slow=True)[0].amin(0)
        values = model.critics(steps.state, steps.action)
        penalty = self.penalty(steps, values[0])
        critic_loss = config.conservatism * penalty + 0.5 * model.critics.loss(values, target.unsqueeze(0))
        for name, loss in (("temperature", temperature_loss), ("actor", actor_loss), ("critics", critic_loss)):
            self.optimisers[name].step(loss)
        model.critics.update_targets()
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(), "penalty": penalty.detach(),
                "value": target.mean(), "temperature": temperature.detach().exp()}
