"""Actors: Gaussians over actions given a state."""

from __future__ import annotations

from torch import Tensor, nn

from safe_policy_core.networks.distributions import BoundedGaussian, SquashedGaussian
from safe_policy_core.networks.mlp import Mlp, relu_mlp
from safe_policy_core.networks.normalisers import Standardiser


class GaussianActor(nn.Module):
    """(..., inputs) -> `BoundedGaussian` over (..., action_dim) actions in [-1, 1]."""

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        # Small last layer: the first actions are near zero and no direction is favoured.
        self.network = Mlp(inputs, 2 * action_dim, units, layers, output_scale=0.01)

    def forward(self, state: Tensor) -> BoundedGaussian:
        return BoundedGaussian(self.network(state))


class PlainActor(nn.Module):
    """(..., inputs) -> `BoundedGaussian`: standardised inputs through a ReLU network without norms, for cloning.

    Norms and squashed inputs, as the world model's encoder has them, can lose the small differences that demonstrators
    steer by: DSPO's clone in HopperVelocity had 0.10 of the reward with norms and 0.33 without. Elsewhere there was no
    clear gain (results/README.md).
    """

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__()
        self.standardiser = Standardiser(inputs)
        self.network = relu_mlp(inputs, 2 * action_dim, units, layers)

    def update_statistics(self, state: Tensor) -> None:
        """Shows the standardiser a training batch."""
        self.standardiser.update(state)

    def forward(self, state: Tensor) -> BoundedGaussian:
        return BoundedGaussian(self.network(self.standardiser(state)))


class SquashedActor(nn.Module):
    """(..., inputs) -> `SquashedGaussian` over (..., action_dim) actions in (-1, 1)."""

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.network = relu_mlp(inputs, 2 * action_dim, units, layers)

    def forward(self, state: Tensor) -> SquashedGaussian:
        return SquashedGaussian(self.network(state))
