"""Actors: Gaussians over actions given a state."""

from __future__ import annotations

from torch import Tensor, nn

from safe_policy_core.networks.distributions import BoundedGaussian, SquashedGaussian
from safe_policy_core.networks.mlp import Mlp, relu_mlp


class GaussianActor(nn.Module):
    """(..., inputs) -> `BoundedGaussian` over (..., action_dim) actions in [-1, 1]."""

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        # Small last layer: the first actions are near zero and no direction is favoured.
        self.network = Mlp(inputs, 2 * action_dim, units, layers, output_scale=0.01)

    def forward(self, state: Tensor) -> BoundedGaussian:
        return BoundedGaussian(self.network(state))


class SquashedActor(nn.Module):
    """(..., inputs) -> `SquashedGaussian` over (..., action_dim) actions in (-1, 1)."""

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.network = relu_mlp(inputs, 2 * action_dim, units, layers)

    def forward(self, state: Tensor) -> SquashedGaussian:
        return SquashedGaussian(self.network(state))
