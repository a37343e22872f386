"""Several MLPs of a state and something chosen there (an action, a latent), evaluated in one batched pass.

The value-based methods rate many actions of the same state by several critics. Here the state's share
of the first layer is computed once for all of its actions, and all networks are one batched matrix
product a layer.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from safe_policy_core.networks.linear import linear, onednn_wins


class PairedMlp(nn.Module):
    """`members` separate ReLU MLPs: (B, inputs), (*candidates, B, choice) -> (members, *candidates, B, outputs).

    Weights start as those of `nn.Linear`, uniform within 1 / sqrt(fan in).
    """

    def __init__(self, inputs: int, choice: int, outputs: int, units: int, layers: int, members: int = 1) -> None:
        super().__init__()
        sizes = [inputs + choice, *[units] * layers]
        bounds = [1 / math.sqrt(size) for size in sizes]

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.state_weight = uniform(bounds[0], members, inputs, units)
        self.choice_weight = uniform(bounds[0], members, choice, units)
        shapes = [*[units] * (layers - 1), outputs]
        self.weights = nn.ParameterList(uniform(bound, members, units, size)
                                        for bound, size in zip(bounds[1:], shapes, strict=True))
        self.biases = nn.ParameterList(uniform(bound, members, 1, size)
                                       for bound, size in zip(bounds, [units, *shapes], strict=True))

    def forward(self, state: Tensor, choice: Tensor, chosen: slice = slice(None)) -> Tensor:
        """`chosen`: of the members, those to evaluate."""
        state_weight, choice_weight = self.state_weight[chosen], self.choice_weight[chosen]
        layers = [(weight[chosen], bias[chosen]) for weight, bias in zip(self.weights, list(self.biases)[1:],
                                                                         strict=True)]
        members, _, units = state_weight.shape
        rows, flat = choice.shape[:-1], choice.reshape(-1, choice.shape[-1])
        if onednn_wins(state, len(flat) * units * units):
            # One after the other, by the faster product, which takes no batch.
            values = torch.stack([self._one(state, flat, number, state_weight, choice_weight, self.biases[0][chosen],
                                            layers) for number in range(members)])
            return values.view(members, *rows, values.shape[-1])
        flat = flat.expand(members, *flat.shape)
        hidden = torch.baddbmm(self.biases[0][chosen], state.expand(members, *state.shape), state_weight)
        if flat.shape[1] == hidden.shape[1]:
            hidden = torch.baddbmm(hidden, flat, choice_weight)
        else:
            offset = torch.bmm(flat, choice_weight).view(members, -1, len(state), units)
            hidden = (offset + hidden.unsqueeze(1)).view(members, -1, units)
        for weight, bias in layers:
            hidden = torch.baddbmm(bias, hidden.relu_(), weight)
        return hidden.view(members, *rows, hidden.shape[-1])

    def fixed(self, chosen: slice) -> Callable[[Tensor, Tensor], Tensor]:
        """`forward` of (B, inputs) states with one (B, choice) each, for weights that stay, without gradients.

        For one state, taking the weights out of their module takes as long as the products.
        """
        first = torch.cat([self.state_weight[chosen], self.choice_weight[chosen]], 1)
        biases, weights = [bias[chosen] for bias in self.biases], [weight[chosen] for weight in self.weights]

        def function(state: Tensor, choice: Tensor) -> Tensor:
            hidden = torch.baddbmm(biases[0], torch.cat([state, choice], 1).expand(len(first), -1, -1), first)
            for weight, bias in zip(weights, biases[1:], strict=True):
                hidden = torch.baddbmm(bias, hidden.relu_(), weight)
            return hidden

        return function

    @staticmethod
    def _one(state: Tensor, flat: Tensor, number: int, state_weight: Tensor, choice_weight: Tensor, bias: Tensor,
             layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Of the member `number`: (B, inputs), (candidates * B, choice) -> (candidates * B, outputs)."""
        shared = linear(state, state_weight[number].T, bias[number, 0])
        hidden = torch.mm(flat, choice_weight[number]).view(-1, *shared.shape).add_(shared).flatten(0, 1)
        for weight, offset in layers:
            hidden = linear(hidden.relu_(), weight[number].T, offset[number, 0])
        return hidden


class TwinCritics(nn.Module):
    """Two Q functions of each signal (0: reward, 1: cost) and their slow copies, in one batched pass.

    One optimiser trains all of them: their gradients do not mix, and Adam treats every number by itself.

    scale (signals,): what the networks' outputs are multiplied by, and errors are counted in.
    """

    scale: Tensor

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int, signals: int, target_rate: float
                 ) -> None:
        super().__init__()
        self.signals, self.target_rate = signals, target_rate
        self.register_buffer("scale", torch.ones(signals))
        self.network = PairedMlp(inputs, action_dim, 1, units, layers, 2 * signals)
        self.target = copy.deepcopy(self.network).requires_grad_(False)

    def forward(self, state: Tensor, action: Tensor, slow: bool = False) -> Tensor:
        """(B, inputs), (*candidates, B, action_dim) -> (signals, 2, *candidates, B)."""
        values = (self.target if slow else self.network)(state, action).view(self.signals, 2, *action.shape[:-1])
        return values * self.scale.view(-1, *[1] * (values.dim() - 1))

    def of(self, signal: int, state: Tensor, action: Tensor) -> Tensor:
        """Both estimates of one signal alone: (B, inputs), (*candidates, B, action_dim) -> (2, *candidates, B)."""
        pair = self.network(state, action, slice(2 * signal, 2 * signal + 2))
        return pair.squeeze(-1) * self.scale[signal]

    def fixed(self, signal: int) -> Callable[[Tensor, Tensor], Tensor]:
        """As `of`, by the slow copies, for (B, inputs) states with one action each, while they stay as they are."""
        function, scale = self.target.fixed(slice(2 * signal, 2 * signal + 2)), self.scale[signal]
        return lambda state, action: function(state, action).squeeze(-1) * scale

    def loss(self, values: Tensor, targets: Tensor) -> Tensor:
        """Mean squared errors of (signals, 2, B) values to (signals, B) targets in units of `scale`, summed over the Q
        functions."""
        return self.squares(values, targets).mean(-1).sum()

    def squares(self, values: Tensor, targets: Tensor) -> Tensor:
        """Squared errors of (signals, 2, B) values to (signals, B) targets in units of `scale`, as the values."""
        return ((values - targets.detach().unsqueeze(1)) / self.scale.view(-1, 1, 1)).square()

    @torch.no_grad()
    def update_targets(self) -> None:
        """target <- target + rate * (network - target)."""
        follow(self.target, self.network, self.target_rate)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Moves every parameter of `target` by `rate` of the way to `source`."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def soft_clipped(pair: Tensor, weight: float, dim: int = 0) -> Tensor:
    """weight * min + (1 - weight) * max over a pair of estimates (BCQ eq. 13); a weight of 1 is clipped double Q."""
    low, high = torch.aminmax(pair, dim=dim)
    return torch.lerp(high, low, weight)
