"""The recurrent cell of DreamerV3: a GRU with LayerNorm over all gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from safe_policy_core.networks.linear import Linear, at_least_float32
from safe_policy_core.networks.mlp import NORM_EPSILON, initialise


class NormGruCell(nn.Module):
    """(N, inputs), (N, size) -> (N, size).

    Reset, candidate and update come from one normed linear map of both inputs; the update gate's
    bias of -1 makes the cell remember at the start of training.
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear = Linear(inputs + size, 3 * size, bias=False)
        self.norm = nn.LayerNorm(3 * size, NORM_EPSILON)
        initialise(self.linear)

    def forward(self, value: Tensor, state: Tensor) -> Tensor:
        gates = at_least_float32(self.norm(self.linear(torch.cat([value, state], -1))))
        reset, candidate, update = gates.chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(state, candidate, torch.sigmoid(update - 1))
