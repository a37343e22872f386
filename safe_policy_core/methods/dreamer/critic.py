"""The critic of DreamerV3: V of a state, with a slow copy that holds it back."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from safe_policy_core.methods.fosp.equations import lambda_returns
from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.networks.symlog import BINS, TwoHot
from safe_policy_core.world_model import ImaginedSteps


class StateCritic(nn.Module):
    """V(s): (..., inputs) -> (...). Starts at 0. two_hot: as in `Critic`."""

    def __init__(self, inputs: int, units: int, layers: int, *, two_hot: bool, slow_rate: float, slow_scale: float
                 ) -> None:
        super().__init__()
        self.slow_rate, self.slow_scale = slow_rate, slow_scale
        self.encoding = TwoHot() if two_hot else None
        self.network = Mlp(inputs, BINS if two_hot else 1, units, layers, 0.0)
        self.slow = copy.deepcopy(self.network).requires_grad_(False)

    def _numbers(self, output: Tensor) -> Tensor:
        return output.squeeze(-1) if self.encoding is None else self.encoding.mean(output)

    def forward(self, features: Tensor) -> Tensor:
        return self._numbers(self.network(features))

    def returns(self, features: Tensor, received: Tensor, continues: Tensor, discount: float, blend: float) -> Tensor:
        """Lambda returns (H, N) of states (H + 1, N, ...) at whose arrival `received` (H, N) was; with their graph."""
        return lambda_returns(received, continues, self(features[1:]), discount, blend)

    def loss(self, imagined: ImaginedSteps, returns: Tensor) -> Tensor:
        """Error to the returns (H, N) and, weighted by `slow_scale`, to the slow copy; a scalar."""
        states = imagined.features[:-1]
        output = self.network(states)
        with torch.no_grad():
            slow = self._numbers(self.slow(states))
        if self.encoding is None:
            error, pull = (output.squeeze(-1) - returns.detach()).square(), (output.squeeze(-1) - slow).square()
        else:
            error = self.encoding.negative_log_likelihood(output, returns.detach())
            pull = self.encoding.negative_log_likelihood(output, slow)
        return imagined.mean(error + self.slow_scale * pull)

    @torch.no_grad()
    def update_slow(self) -> None:
        """slow <- slow + rate * (network - slow)."""
        for slow, source in zip(self.slow.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(source, self.slow_rate)
