"""The temporal U-Net of Diffuser (Janner et al. 2022), conditioned as in Decision Diffuser (Ajay et al. 2022).

Everything is (batch, time, channels), the layout in which a convolution over time is one large matrix product.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.networks.linear import Linear, linear

KERNEL, GROUPS = 5, 8


class Sinusoids(nn.Module):
    """(B,) diffusion steps -> (B, size): sines and cosines of geometrically spaced frequencies."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        half = size // 2
        spacing = torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
        self.register_buffer("frequencies", spacing, persistent=False)

    def forward(self, step: Tensor) -> Tensor:
        angle = step.unsqueeze(-1) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)


class _TimeConvolution(torch.autograd.Function):
    """(B, T, C), (taps, C, O), (O,) -> (B, T, O): a convolution with zeros around each sequence.

    What it sees at a step is a row of taps * C numbers, so that it and its gradients are one matrix product each. The
    rows are made again for the backward pass, they take `taps` times the memory of the sequences.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        border = len(weight) // 2
        padded = functional.pad(value, (0, 0, border, border))
        ctx.save_for_backward(padded, weight)
        return linear(_windows(padded, len(weight)), weight.flatten(0, 1).T, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        padded, weight = ctx.saved_tensors
        taps, steps = len(weight), gradient.shape[1]
        border, flat = taps // 2, gradient.flatten(0, 1)
        to_weight = linear(_windows(padded, taps).flatten(0, 1).T, flat.T)
        to_windows = linear(gradient, weight.flatten(0, 1)).unflatten(-1, (taps, -1))
        to_value = torch.zeros_like(padded)
        for tap in range(taps):
            to_value[:, tap:tap + steps] += to_windows[:, :, tap]
        return to_value[:, border:border + steps], to_weight.view_as(weight), flat.sum(0)


def _windows(padded: Tensor, taps: int) -> Tensor:
    """(B, T + taps - 1, C) -> (B, T, taps * C)."""
    (batch, steps, channels), (sequence, *_) = padded.shape, padded.stride()
    return padded.as_strided((batch, steps - taps + 1, taps * channels), (sequence, channels, 1)).contiguous()


class TimeConv(nn.Module):
    """(B, T, inputs) -> (B, T, outputs): a convolution over time with an odd `kernel`."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        limit = 1 / math.sqrt(inputs * kernel)
        self.weight = nn.Parameter(torch.empty(kernel, inputs, outputs).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-limit, limit))

    def forward(self, value: Tensor) -> Tensor:
        return _TimeConvolution.apply(value, self.weight, self.bias)


class TimeNorm(nn.GroupNorm):
    """GroupNorm of (B, T, C) over time and the channels of a group."""

    def forward(self, value: Tensor) -> Tensor:
        # (B, C, 1, T) in channels-last order, for which there is a kernel; the same memory, no copy.
        normed = super().forward(value.unsqueeze(1).permute(0, 3, 1, 2))
        return normed.permute(0, 2, 3, 1).squeeze(1)


class ConvBlock(nn.Sequential):
    """Convolution, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(TimeConv(inputs, outputs, KERNEL), TimeNorm(GROUPS, outputs), nn.Mish())


class ResidualBlock(nn.Module):
    """Two convolution blocks with the embedding of step and conditions added between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.first, self.second = ConvBlock(inputs, outputs), ConvBlock(outputs, outputs)
        self.shift = nn.Sequential(nn.Mish(), Linear(embedding, outputs))
        self.shortcut = nn.Identity() if inputs == outputs else Linear(inputs, outputs)

    def forward(self, value: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(value) + self.shift(embedding).unsqueeze(1)
        return self.second(hidden) + self.shortcut(value)


class Level(nn.Module):
    """Two residual blocks: (B, T, inputs) -> (B, T, outputs)."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.first = ResidualBlock(inputs, outputs, embedding)
        self.second = ResidualBlock(outputs, outputs, embedding)

    def forward(self, value: Tensor, embedding: Tensor) -> Tensor:
        return self.second(self.first(value, embedding), embedding)


class Resample(nn.Module):
    """(B, T, C) -> (B, T / 2, C) or (B, 2 T, C) by torch's own strided convolutions: a small share of the work."""

    def __init__(self, layer: nn.Conv1d | nn.ConvTranspose1d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, value: Tensor) -> Tensor:
        return self.layer(value.transpose(1, 2)).transpose(1, 2)


class TemporalUnet(nn.Module):
    """(B, T, channels), (B,) steps, (B, conditions), (B,) keep -> (B, T, channels).

    T is a multiple of `stride`. multipliers: channels of each level, in units of `dim`. Where `keep` is 0 the
    conditions are replaced by nothing (a zero embedding), which is the unconditional model.
    """

    def __init__(self, channels: int, dim: int, multipliers: tuple[int, ...], conditions: int) -> None:
        super().__init__()
        if dim % GROUPS or not multipliers:
            raise ConfigurationError(f"dim: expected a multiple of {GROUPS} and at least one multiplier, got {dim} and "
                                     f"{multipliers}")
        self.stride = 2 ** (len(multipliers) - 1)
        self.step_embedding = nn.Sequential(Sinusoids(dim), Linear(dim, 4 * dim), nn.Mish(), Linear(4 * dim, dim))
        self.condition_embedding = nn.Sequential(Linear(conditions, dim), nn.Mish(), Linear(dim, 4 * dim),
                                                 nn.Mish(), Linear(4 * dim, dim))
        sizes = [dim * multiplier for multiplier in multipliers]
        embedding, deepest = 2 * dim, sizes[-1]
        inputs = [channels, *sizes[:-1]]
        self.down = nn.ModuleList(Level(before, after, embedding)
                                  for before, after in zip(inputs, sizes, strict=True))
        self.shrink = nn.ModuleList(Resample(nn.Conv1d(size, size, 3, 2, 1)) for size in sizes[:-1])
        self.middle = Level(deepest, deepest, embedding)
        upward = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.up = nn.ModuleList(Level(2 * before, after, embedding) for before, after in upward)
        self.grow = nn.ModuleList(Resample(nn.ConvTranspose1d(after, after, 4, 2, 1)) for _, after in upward)
        self.output = nn.Sequential(ConvBlock(sizes[0], sizes[0]), Linear(sizes[0], channels))

    def forward(self, value: Tensor, step: Tensor, conditions: Tensor, keep: Tensor) -> Tensor:
        if value.shape[1] % self.stride:
            raise ConfigurationError(f"horizon: expected a multiple of {self.stride}, got {value.shape[1]}")
        given = self.condition_embedding(conditions) * keep[:, None]
        embedding = torch.cat([self.step_embedding(step), given], -1)
        hidden, skipped = value, []
        for index, level in enumerate(self.down):
            hidden = level(hidden, embedding)
            skipped.append(hidden)
            if index < len(self.shrink):
                hidden = self.shrink[index](hidden)
        hidden = self.middle(hidden, embedding)
        for level, grow in zip(self.up, self.grow, strict=True):
            hidden = grow(level(torch.cat([hidden, skipped.pop()], -1), embedding))
        return self.output(hidden)

