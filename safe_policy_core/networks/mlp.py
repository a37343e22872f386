"""Linear layers and the MLP of DreamerV3: LayerNorm, then SiLU."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import cast

import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.networks.linear import Linear, at_least_float32, linear

NORM_EPSILON = 1e-3


def initialise(module: nn.Module, scale: float = 1.0) -> None:
    """Truncated normal of variance scale / mean(fan in, fan out); zero biases; `scale` 0 gives zeros."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            receptive = layer.weight[0][0].numel() if layer.weight.dim() > 2 else 1
            fan_in, fan_out = layer.weight.shape[1] * receptive, layer.weight.shape[0] * receptive
            # 0.8796 is the standard deviation of a unit normal cut at two deviations.
            deviation = math.sqrt(scale / ((fan_in + fan_out) / 2)) / 0.87962566103423978
            if scale == 0:
                nn.init.zeros_(layer.weight)
            else:
                nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Hidden(nn.Sequential):
    """(..., inputs) -> (..., units): Linear without bias, LayerNorm, SiLU."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(Linear(inputs, units, bias=False), nn.LayerNorm(units, NORM_EPSILON), nn.SiLU())

    def forward(self, value: Tensor) -> Tensor:
        # Without calling the three modules: for one observation that takes as long as their sums.
        norm = cast(nn.LayerNorm, self[1])
        return functional.silu(functional.layer_norm(linear(value, cast(nn.Linear, self[0]).weight),
                                                     norm.normalized_shape, norm.weight, norm.bias, norm.eps))


class Mlp(nn.Module):
    """(..., inputs) -> (..., outputs). `output_scale` scales the last layer's initial variance (0: starts at zero)."""

    def __init__(self, inputs: int, outputs: int, units: int, layers: int, output_scale: float = 1.0) -> None:
        super().__init__()
        self.hidden = nn.Sequential(*(Hidden(inputs if index == 0 else units, units) for index in range(layers)))
        self.output = Linear(units if layers else inputs, outputs)
        initialise(self.hidden)
        initialise(self.output, output_scale)

    def forward(self, value: Tensor) -> Tensor:
        return at_least_float32(self.output(self.hidden(value)))


def without_modules(layers: nn.Sequential) -> Callable[[Tensor], Tensor]:
    """What a `relu_mlp` computes, without gradients and without calling its modules, which takes as long as it does."""
    weights = [(layer.weight, layer.bias) for layer in layers if isinstance(layer, nn.Linear)]

    def function(value: Tensor) -> Tensor:
        for weight, bias in weights[:-1]:
            value = linear(value, weight, bias).relu_()
        return linear(value, *weights[-1])

    return function


def relu_mlp(inputs: int, outputs: int, units: int, layers: int) -> nn.Sequential:
    """(..., inputs) -> (..., outputs): the plain network of the value-based papers, without norms."""
    sizes = [inputs, *[units] * layers]
    parts = [part for before, after in itertools.pairwise(sizes) for part in (Linear(before, after), nn.ReLU())]
    return nn.Sequential(*parts, Linear(sizes[-1], outputs))
