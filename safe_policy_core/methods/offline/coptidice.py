"""COptiDICE: offline constrained RL by stationary distribution correction (Lee et al. 2022).

nu(s) and lambda >= 0 solve the dual of reward maximisation near the data under a cost bound; the ratio w of
the optimal policy's state-action distribution to the data's follows in closed form, and the policy imitates
the data weighted by it. The cost is bounded not under w itself but under the worst distribution within
`cost_divergence` of it (chi, tau), because w is an estimate.

Costs under w are means over steps of the normalised discounted distribution; so is the limit here,
(1 - discount) times the limit on cost values. (OSRL compares the former with the latter.) The actor is
this project's bounded Gaussian; no noise is added to what it imitates.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import CoptidiceConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.mlp import relu_mlp


def divergence(ratio: Tensor) -> Tensor:
    """f of the soft chi-square divergence: x (ln x - 1) + 1 below 1, (x - 1)^2 / 2 above."""
    low = ratio.clamp(1e-10, 1)
    return torch.where(ratio < 1, low * (low.log() - 1) + 1, 0.5 * (ratio - 1).square())


def ratio_of(advantage: Tensor) -> Tensor:
    """The inverse of f': exp(x) below 0, x + 1 above. Never negative, so that it is the optimal w by itself."""
    return torch.where(advantage < 0, advantage.clamp(max=0).exp(), advantage + 1)


class CoptidiceModel(OfflineModel):
    """duals: lambda and tau before their softplus."""

    def __init__(self, specs: Specs, config: CoptidiceConfig) -> None:
        super().__init__(specs, config)
        self.nu = relu_mlp(self.inputs, 1, config.units, config.layers)
        self.chi = relu_mlp(self.inputs, 1, config.units, config.layers)
        self.actor = GaussianActor(self.inputs, self.action_dim, config.units, config.layers)
        self.duals = nn.ParameterDict({"lambda": nn.Parameter(torch.ones(())), "tau": nn.Parameter(torch.ones(()))})

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = normal_noise(distribution.mean.shape, generator, state.device)
        return Decision(distribution.mode if deterministic else distribution.sample(normal))


class CoptidiceLearner(OfflineLearner):
    """One step of nu, chi, lambda, tau and the actor."""

    method = "coptidice"
    config_class = CoptidiceConfig
    model_class = CoptidiceModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"nu": (model.nu, config.learning_rate), "chi": (model.chi, config.learning_rate),
                "duals": (model.duals, config.dual_learning_rate), "actor": (model.actor, config.actor_learning_rate)}

    def residual(self, network: nn.Module, signal: Tensor, steps: Steps) -> Tensor:
        """signal + discount nu(s') - nu(s), (B,)."""
        return signal + steps.discount * network(steps.next_state).squeeze(-1) - network(steps.state).squeeze(-1)

    def cost_bound(self, ratio: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Tensor]:
        """Upper bound of the cost under w, loss of chi, and the divergence reached (section 3.2).

        The worst weights over the batch are a softmax of chi's objective at temperature tau.
        """
        config, count = self.config, len(ratio)
        if config.cost_divergence == 0:
            zero = ratio.new_zeros(())
            return (ratio * steps.cost).mean(), zero, zero
        start = (1 - config.discount) * self.model.chi(steps.first_state).squeeze(-1)
        objective = start + ratio * self.residual(self.model.chi, steps.cost, steps)
        log_weight = (objective.detach() / functional.softplus(self.model.duals["tau"].detach())).log_softmax(0)
        weight, log_weight = log_weight.exp() * count, log_weight + math.log(count)
        reached = (weight * log_weight - weight + 1).mean()
        return (weight * ratio * steps.cost).mean(), (weight * objective).mean(), reached

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        multiplier, tau = (functional.softplus(model.duals[name]) for name in ("lambda", "tau"))
        signal = steps.reward - multiplier.detach() * steps.cost
        residual = self.residual(model.nu, signal, steps)
        ratio = ratio_of(residual / config.divergence)
        start = (1 - config.discount) * model.nu(steps.first_state).mean()
        nu_loss = start + (ratio * residual - config.divergence * divergence(ratio)).mean()

        cost, chi_loss, reached = self.cost_bound(ratio.detach(), steps)
        limit = (1 - config.discount) * model.cost_threshold
        dual_loss = multiplier * (limit - cost.detach())
        losses = {"nu": nu_loss}
        if config.cost_divergence:
            losses["chi"] = chi_loss
            dual_loss = dual_loss + tau * (config.cost_divergence - reached.detach())
        losses["duals"] = dual_loss
        losses["actor"] = -(ratio.detach() * model.actor(steps.state).log_probability(steps.action)).mean()
        for name, loss in losses.items():
            self.optimisers[name].step(loss)
        return {"nu_loss": nu_loss.detach(), "actor_loss": losses["actor"].detach(), "ratio": ratio.detach().mean(),
                "cost_bound": cost.detach(), "multiplier": multiplier.detach(), "tau": tau.detach(),
                "divergence": reached.detach()}
