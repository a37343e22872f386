"""The temporal U-Net of Diffuser (Janner et al. 2022), conditioned as in Decision Diffuser (Ajay et al. 2022).

Inside it everything is (batch, 1, time, channels) in memory, the layout in which a convolution over time is
one matrix product for each of its taps; on a CPU that is faster than `Conv1d` on (batch, channels, time).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError

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


class TimeConv(nn.Conv2d):
    """(B, C, 1, T) -> (B, outputs, 1, T / stride): a convolution over time."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, (1, kernel), (1, stride), (0, kernel // 2))


class ConvBlock(nn.Sequential):
    """Convolution, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(TimeConv(inputs, outputs, KERNEL), nn.GroupNorm(GROUPS, outputs), nn.Mish())


class ResidualBlock(nn.Module):
    """Two convolution blocks with the embedding of step and conditions added between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.first, self.second = ConvBlock(inputs, outputs), ConvBlock(outputs, outputs)
        self.shift = nn.Sequential(nn.Mish(), nn.Linear(embedding, outputs))
        self.shortcut = nn.Identity() if inputs == outputs else TimeConv(inputs, outputs, 1)

    def forward(self, value: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.first(value) + self.shift(embedding)[:, :, None, None]
        return self.second(hidden) + self.shortcut(value)


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
        self.step_embedding = nn.Sequential(Sinusoids(dim), nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))
        self.condition_embedding = nn.Sequential(nn.Linear(conditions, dim), nn.Mish(), nn.Linear(dim, 4 * dim),
                                                 nn.Mish(), nn.Linear(4 * dim, dim))
        sizes = [dim * multiplier for multiplier in multipliers]
        embedding, deepest = 2 * dim, sizes[-1]
        inputs = [channels, *sizes[:-1]]
        self.down = nn.ModuleList(nn.ModuleList([ResidualBlock(before, after, embedding),
                                                 ResidualBlock(after, after, embedding)])
                                  for before, after in zip(inputs, sizes, strict=True))
        self.shrink = nn.ModuleList(TimeConv(size, size, 3, 2) for size in sizes[:-1])
        self.middle = nn.ModuleList([ResidualBlock(deepest, deepest, embedding) for _ in range(2)])
        upward = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ModuleList([ResidualBlock(2 * before, after, embedding),
                                               ResidualBlock(after, after, embedding)]) for before, after in upward)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(after, after, (1, 4), (1, 2), (0, 1)) for _, after in upward)
        self.output = nn.Sequential(ConvBlock(sizes[0], sizes[0]), TimeConv(sizes[0], channels, 1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, value: Tensor, step: Tensor, conditions: Tensor, keep: Tensor) -> Tensor:
        if value.shape[1] % self.stride:
            raise ConfigurationError(f"horizon: expected a multiple of {self.stride}, got {value.shape[1]}")
        given = self.condition_embedding(conditions) * keep[:, None]
        embedding = torch.cat([self.step_embedding(step), given], -1)
        # The last dimension stays innermost in memory: this is a view in channels-last order.
        hidden = value.unsqueeze(1).permute(0, 3, 1, 2)
        skipped = []
        for level, (first, second) in enumerate(self.down):  # type: ignore[misc]
            hidden = second(first(hidden, embedding), embedding)
            skipped.append(hidden)
            if level < len(self.shrink):
                hidden = self.shrink[level](hidden)
        for block in self.middle:
            hidden = block(hidden, embedding)
        for (first, second), grow in zip(self.up, self.grow, strict=True):  # type: ignore[misc]
            hidden = torch.cat([hidden, skipped.pop()], 1)
            hidden = grow(second(first(hidden, embedding), embedding))
        return self.output(hidden).permute(0, 2, 3, 1).squeeze(1)

