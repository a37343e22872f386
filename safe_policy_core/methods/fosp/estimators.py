"""What FOSP estimates of the future: returns of reward and of cost (section 4.1), and reachability (eq. 30)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from safe_policy_core.methods.fosp.config import FospConfig
from safe_policy_core.methods.fosp.equations import (
    expectile_loss,
    lambda_returns,
    recorded_targets,
    violation_target,
)
from safe_policy_core.networks.critic import Critic, Value
from safe_policy_core.networks.distributions import bernoulli_negative_log_likelihood
from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.networks.normalisers import PercentileScale
from safe_policy_core.networks.paired import follow
from safe_policy_core.world_model import ImaginedSteps, RealSteps


@dataclass(frozen=True)
class Advantages:
    """Slow Q minus V, divided by the percentile range: real (N,), imagined (H, N); detached."""

    real: Tensor
    imagined: Tensor


class ReturnEstimator(nn.Module):
    """Q and V of reward or of cost, trained by eq. 7 to 11."""

    def __init__(self, kind: Literal["reward", "cost"], inputs: int, action_dim: int, config: FospConfig) -> None:
        super().__init__()
        self.kind, self.config = kind, config
        own = config.cost_discount if kind == "cost" else None
        self.discount = config.discount if own is None else own
        self.critic = Critic(inputs, action_dim, config.units, config.layers,
                             pessimism="min" if kind == "reward" else "max", two_hot=config.two_hot_critics,
                             target_rate=config.slow_rate)
        self.value = Value(inputs, config.units, config.layers)
        # Advantages of 1e-3 are noise of the networks, not to be blown up.
        self.scale = PercentileScale() if config.advantage_scale == "return" else PercentileScale(minimum=1e-3)

    @property
    def expectile(self) -> float:
        """Kappa of eq. 7, in this estimator's direction."""
        if not self.config.in_sample:
            return 0.5
        flipped = self.kind == "cost" and self.config.cost_direction == "optimistic"
        return 1 - self.config.expectile if flipped else self.config.expectile

    def loss(self, real: RealSteps, imagined: ImaginedSteps) -> tuple[Tensor, Advantages, dict[str, Tensor]]:
        """Eq. 7 + eq. 11 as one scalar, the advantages, and metrics. Also updates the percentile range."""
        config = self.config
        rewards = (real.reward, imagined.reward) if self.kind == "reward" else (real.cost, imagined.cost)
        horizon, count = imagined.action.shape[:2]
        steps = len(real.features)
        # One pass over recorded and imagined states together; values are cut where they are targets.
        states = torch.cat([real.features, imagined.features[:-1].flatten(0, 1)])
        actions = torch.cat([real.action, imagined.action.flatten(0, 1)])
        values = self.value(states)
        with torch.no_grad():
            slow_outputs = self.critic.outputs(states, actions, slow=True)
            slow = self.critic.numbers(slow_outputs)
            slow = slow.amin(0) if self.critic.pessimism == "min" else slow.amax(0)
            next_values = self.value(real.next_features)
            later = torch.cat([values[steps:].detach().view(horizon, count)[1:],
                               self.value(imagined.features[-1]).unsqueeze(0)])
            blend = config.reward_lambda if self.kind == "reward" else config.cost_lambda
            returns = lambda_returns(rewards[1], imagined.continues, later, self.discount, blend)
            reward, terminal, behind, whole = (part.view(-1, real.length) for part in (
                rewards[0], real.next_terminal, next_values, real.mask))
            recorded = recorded_targets(reward, terminal, behind, whole, self.discount, config.recorded_lambda)
            targets = torch.cat([recorded.flatten(), returns.flatten()])
            if config.advantage_scale == "return":
                self.scale.update(returns)
            elif real.mask.any():
                self.scale.update((slow - values.detach())[:steps][real.mask > 0])
        outputs = self.critic.outputs(states, actions)
        critic_loss = self.critic.loss(outputs, targets) \
            + config.slow_scale * self.critic.slow_loss(outputs, slow_outputs)
        value_loss = expectile_loss(slow, values, self.expectile)
        both = critic_loss + value_loss
        loss = imagined.mean(both[steps:].view(horizon, count))
        # Without in-sample learning nothing but the policy's own actions is used.
        if config.in_sample:
            loss = loss + real.mean(both[:steps])
        advantages = (slow - values.detach()) / self.scale.scale()
        metrics = {f"{self.kind}/critic_loss": critic_loss.mean(), f"{self.kind}/value_loss": value_loss.mean(),
                   f"{self.kind}/value": real.mean(values[:steps]), f"{self.kind}/q": real.mean(slow[:steps]),
                   f"{self.kind}/return": returns.mean(), f"{self.kind}/scale": self.scale.scale()}
        return loss, Advantages(advantages[:steps], advantages[steps:].view(horizon, count)), \
            {name: value.detach() for name, value in metrics.items()}


class Reachability(nn.Module):
    """Probability that the episode will violate the constraint, from recorded costs (eq. 30)."""

    def __init__(self, inputs: int, config: FospConfig) -> None:
        super().__init__()
        self.discount, self.rate = config.reachability_discount, config.slow_rate
        # Starts at 1/2: neither safe nor unsafe.
        self.network = Mlp(inputs, 1, config.units, config.layers, 0.0)
        self.slow = copy.deepcopy(self.network).requires_grad_(False)

    def violation_probability(self, features: Tensor) -> Tensor:
        """p(s) in [0, 1]: (..., features) -> (...)."""
        return self.network(features).squeeze(-1).sigmoid()

    def feasibility(self, features: Tensor) -> Tensor:
        """u of section 4.2: 1 - p."""
        return 1 - self.violation_probability(features)

    def loss(self, features: Tensor, cost: Tensor, is_terminal: Tensor, has_next: Tensor) -> Tensor:
        """Cross entropy to eq. 30 over sequences: (B, L, features), and (B, L) each.

        cost: on arriving at the state. has_next: (B, L - 1), whether row t + 1 follows row t in the
        same episode. A state has a target when its own cost is positive, when it is terminal, or when
        its successor is in the sequence; others are left out.
        """
        with torch.no_grad():
            following = self.slow(features[:, 1:]).squeeze(-1).sigmoid()
            following = torch.cat([following * has_next, torch.zeros_like(following[:, :1])], 1)
            following = following.masked_fill(is_terminal, 0.0)
            target = violation_target(cost, following, self.discount)
            known = torch.cat([has_next, torch.zeros_like(has_next[:, :1])], 1) | is_terminal | (cost > 0)
        loss = bernoulli_negative_log_likelihood(self.network(features).squeeze(-1), target)
        return (loss * known).sum() / known.sum().clamp(min=1)

    def update_slow(self) -> None:
        """slow <- slow + rate * (network - slow)."""
        follow(self.slow, self.network, self.rate)
