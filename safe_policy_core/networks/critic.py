"""Critics of one class for reward and for cost: double Q(s, a) with slow copies, and V(s)."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.networks.paired import follow
from safe_policy_core.networks.symlog import BINS, TwoHot


class Critic(nn.Module):
    """Two Q functions and their slow copies.

    pessimism: which of the two estimates counts: "min" for reward, "max" for cost.
    two_hot: categorical symlog outputs and cross entropy (DreamerV3) instead of numbers and squared errors.
    """

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int, *, pessimism: Literal["min", "max"],
                 two_hot: bool, target_rate: float = 0.02) -> None:
        super().__init__()
        self.pessimism, self.target_rate = pessimism, target_rate
        self.encoding = TwoHot() if two_hot else None
        outputs = BINS if two_hot else 1
        self.networks = nn.ModuleList(Mlp(inputs + action_dim, outputs, units, layers, 0.0) for _ in range(2))
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)

    def outputs(self, state: Tensor, action: Tensor, slow: bool = False) -> list[Tensor]:
        """Raw outputs of both networks, each (..., 255) logits or (..., 1) numbers."""
        joined = torch.cat([state, action], -1)
        return [network(joined) for network in (self.targets if slow else self.networks)]

    def numbers(self, outputs: list[Tensor]) -> Tensor:
        """Raw outputs -> (2, ...) Q values."""
        if self.encoding is not None:
            return torch.stack([self.encoding.mean(logits) for logits in outputs])
        return torch.stack([value.squeeze(-1) for value in outputs])

    def forward(self, state: Tensor, action: Tensor, slow: bool = False) -> Tensor:
        """Pessimistic Q: (..., inputs), (..., action_dim) -> (...). `slow` uses the target networks."""
        values = self.numbers(self.outputs(state, action, slow))
        return values.amin(0) if self.pessimism == "min" else values.amax(0)

    def loss(self, outputs: list[Tensor], target: Tensor) -> Tensor:
        """Sum over both networks of the error to the (...) target (FOSP eq. 9 and 10), elementwise -> (...).

        Squared errors, or cross entropies with two-hot outputs.
        """
        target = target.detach()
        if self.encoding is not None:
            return sum((self.encoding.negative_log_likelihood(logits, target) for logits in outputs),
                       torch.zeros_like(target))
        return (self.numbers(outputs) - target).square().sum(0)

    def slow_loss(self, outputs: list[Tensor], slow_outputs: list[Tensor]) -> Tensor:
        """Pull of each network towards its own slow copy (DreamerV3's critic regulariser), elementwise -> (...)."""
        slow = self.numbers(slow_outputs).detach()
        if self.encoding is not None:
            return sum((self.encoding.negative_log_likelihood(logits, value)
                        for logits, value in zip(outputs, slow, strict=True)), torch.zeros_like(slow[0]))
        return (self.numbers(outputs) - slow).square().sum(0)

    def update_targets(self) -> None:
        """target <- target + rate * (network - target)."""
        follow(self.targets, self.networks, self.target_rate)


class Value(nn.Module):
    """V(s): (..., inputs) -> (...)."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.network = Mlp(inputs, 1, units, layers, 0.0)

    def forward(self, state: Tensor) -> Tensor:
        return self.network(state).squeeze(-1)
