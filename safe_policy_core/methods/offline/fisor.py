"""FISOR: safe offline RL with a feasibility-guided diffusion model (Zheng et al. 2024).

A Hamilton-Jacobi value of the largest feasible region (Q_h, V_h <= 0 inside) is learned from recorded
actions by a reversed expectile; the reward's values as in IQL. A diffusion model imitates the data weighted
by exp(reward advantage) inside the region, without the actions that leave it, and by exp(-cost advantage)
outside. When acting, the most feasible of several draws is taken.

Departures: the noise schedule is the cosine one shared with DSPO; diffusion steps are embedded by a table;
weights outside have no lower bound of 1 (the authors' code has one, the equation none).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.fosp.equations import expectile_loss
from safe_policy_core.methods.offline.config import FisorConfig
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.diffusion import Diffusion
from safe_policy_core.networks.linear import Linear
from safe_policy_core.networks.mlp import relu_mlp
from safe_policy_core.networks.paired import TwinCritics, follow

_STEP_FEATURES = 32


def feasible_target(violation: Tensor, next_value: Tensor, discount: Tensor) -> Tensor:
    """(1 - discount) h(s) + discount max(h(s), V_h(s')), the feasible Bellman operator; h(s) where an episode ends."""
    return torch.lerp(violation, torch.maximum(violation, next_value), discount)


def imitation_weight(advantage: Tensor, feasible_value: Tensor, feasible_q: Tensor, config: FisorConfig) -> Tensor:
    """The weights of the diffusion loss, (B,).

    advantage: Q - V of the reward. In the feasible region (V_h <= 0) exp(alpha_1 A) for actions that stay
    (Q_h <= 0) and 0 for the others; outside exp(alpha_2 (V_h - Q_h)).
    """
    inside = (config.reward_temperature * advantage).exp().clamp(max=config.largest_reward_weight)
    outside = (config.cost_temperature * (feasible_value - feasible_q)).exp().clamp(max=config.largest_cost_weight)
    return torch.where(feasible_value <= 0, inside * (feasible_q <= 0), outside)


class Denoiser(nn.Module):
    """(N, inputs), (N, action_dim) noisy actions, (N,) steps -> the noise: residual blocks with LayerNorm and Mish."""

    def __init__(self, inputs: int, action_dim: int, config: FisorConfig) -> None:
        super().__init__()
        units = config.units
        self.step = nn.Embedding(config.steps, _STEP_FEATURES)
        self.input = Linear(inputs + action_dim + _STEP_FEATURES, units)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Dropout(config.dropout), nn.LayerNorm(units), Linear(units, 4 * units), nn.Mish(),
                          Linear(4 * units, units)) for _ in range(config.blocks))
        self.output = Linear(units, action_dim)

    def forward(self, state: Tensor, action: Tensor, step: Tensor) -> Tensor:
        hidden = self.input(torch.cat([state, action, self.step(step)], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.output(functional.mish(hidden))


class FisorModel(OfflineModel):
    """critics: of reward and of violation. values: V and V_h. `slow_actor`, an average of the denoiser, acts."""

    def __init__(self, specs: Specs, config: FisorConfig) -> None:
        super().__init__(specs, config)
        self.critics = TwinCritics(self.inputs, self.action_dim, config.units, config.layers, 2, config.target_rate)
        self.values = nn.ModuleList(relu_mlp(self.inputs, 1, config.units, config.layers) for _ in range(2))
        self.diffusion = Diffusion(config.steps)
        self.actor = Denoiser(self.inputs, self.action_dim, config)
        self.slow_actor = copy.deepcopy(self.actor).requires_grad_(False).eval()

    def state_values(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """V and V_h, each (B,)."""
        value, feasible = (network(state).squeeze(-1) for network in self.values)
        return value, feasible

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        """For a single state. Every decision is a draw; `deterministic` is the same."""
        states = state.repeat_interleave(self.config.candidates, 0)
        start = normal_noise((len(states), self.action_dim), generator, state.device)
        actions = self.diffusion.sample(lambda action, step: self.slow_actor(states, action, step), start, generator,
                                        bound=1.0)
        values = self.critics(states, actions, slow=True)
        best = values[1].amax(0).view(len(state), -1).argmin(-1)
        index = torch.arange(len(state), device=state.device) * self.config.candidates + best
        return Decision(actions[index], values[0].amin(0)[index], values[1].amax(0)[index])


class FisorLearner(OfflineLearner):
    """One step of the values, the critics and the denoiser."""

    method = "fisor"
    config_class = FisorConfig
    model_class = FisorModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"values": (model.values, config.learning_rate), "critics": (model.critics, config.learning_rate),
                "actor": (model.actor, config.actor_learning_rate)}

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        violation = torch.where(steps.cost > 0, config.violation, -1.0)
        with torch.no_grad():
            slow = model.critics(steps.state, steps.action, slow=True)
            reward_q, feasible_q = slow[0].amin(0), slow[1].amax(0)
            next_value, next_feasible = model.state_values(steps.next_state)
            targets = torch.stack([steps.reward + steps.discount * next_value,
                                   feasible_target(violation, next_feasible, steps.discount)])
        value, feasible = model.state_values(steps.state)
        # V_h is the lower expectile: the best that a recorded action can do.
        value_loss = (expectile_loss(reward_q, value, config.expectile)
                      + expectile_loss(feasible_q, feasible, 1 - config.expectile)).mean()
        critic_loss = model.critics.loss(model.critics(steps.state, steps.action), targets)
        weight = imitation_weight(reward_q - value.detach(), feasible.detach(), feasible_q, config)
        step = torch.randint(config.steps, weight.shape, device=self.device)
        noise = torch.randn_like(steps.action)
        found = model.actor(steps.state, model.diffusion.noisy(steps.action, step, noise), step)
        actor_loss = (weight * (found - noise).square().sum(-1)).mean()
        for name, loss in (("values", value_loss), ("critics", critic_loss), ("actor", actor_loss)):
            self.optimisers[name].step(loss)
        model.critics.update_targets()
        follow(model.slow_actor, model.actor, config.actor_target_rate)
        return {"critic_loss": critic_loss.detach(), "actor_loss": actor_loss.detach(),
                "value_loss": value_loss.detach(), "value": value.detach().mean(), "weight": weight.mean(),
                "feasible_share": (feasible <= 0).float().mean()}
