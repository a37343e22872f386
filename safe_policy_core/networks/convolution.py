"""Encoder and decoder for square images, built to be fast on a CPU.

Deviation from DreamerV3's four strided convolutions: the first stage works on patches (every
`stem` x `stem` square of pixels becomes one vector, by a matrix product), and the decoder's last
stage writes patches. On two CPU cores the encoder's training pass took 0.08 to 0.10 s for 512 images
instead of 0.36 s with four strided convolutions of 16 channels and more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.networks.linear import Linear
from safe_policy_core.networks.mlp import NORM_EPSILON, initialise

SMALLEST = 4
"""Side of the feature map at which images turn into a vector."""


def stages(image_shape: tuple[int, ...], stem: int) -> int:
    """Number of halvings between the patch grid and the smallest map.

    Raises `ConfigurationError` unless the image is (side, side, channels) with side = stem * 4 * 2^n.
    """
    side = image_shape[0]
    grid = side // stem
    count = (grid // SMALLEST).bit_length() - 1
    if len(image_shape) != 3 or side != image_shape[1] or side % stem or count < 0 or SMALLEST << count != grid:
        raise ConfigurationError(f"observation image: shape {image_shape} does not fit a stem of {stem}; expected "
                                 f"(side, side, channels) with side {stem} * {SMALLEST} * a power of two")
    return count


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (N, C, H, W), free of copies in the channels-last layout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, NORM_EPSILON)

    def forward(self, value: Tensor) -> Tensor:
        return self.norm(value.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """(N, side, side, channels) uint8 -> (N, `size`)."""

    def __init__(self, image_shape: tuple[int, ...], depth: int, stem: int) -> None:
        super().__init__()
        self.shape, self.patch = image_shape, stem
        count = stages(image_shape, stem)
        self.stem = Linear(stem * stem * image_shape[2], depth, bias=False)
        self.stem_norm = nn.Sequential(nn.LayerNorm(depth, NORM_EPSILON), nn.SiLU())
        layers: list[nn.Module] = []
        for stage in range(count):
            channels = depth << stage
            layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False), ChannelNorm(2 * channels), nn.SiLU()]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.size = SMALLEST * SMALLEST * (depth << count)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        side, _, channels = self.shape
        grid = side // self.patch
        patches = image.view(-1, grid, self.patch, grid, self.patch, channels).transpose(2, 3)
        pixels = patches.reshape(-1, grid, grid, self.patch * self.patch * channels).float() / 255 - 0.5
        features = self.layers(self.stem_norm(self.stem(pixels)).permute(0, 3, 1, 2))
        return features.permute(0, 2, 3, 1).reshape(len(features), self.size)


class ImageDecoder(nn.Module):
    """(N, inputs) -> (N, side, side, channels), floats around [0, 1]."""

    def __init__(self, image_shape: tuple[int, ...], inputs: int, depth: int, stem: int) -> None:
        super().__init__()
        self.shape, self.patch = image_shape, stem
        count = stages(image_shape, stem)
        self.channels = depth << count
        self.input = Linear(inputs, SMALLEST * SMALLEST * self.channels)
        layers: list[nn.Module] = []
        for stage in reversed(range(count)):
            channels = depth << stage
            layers += [nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1, bias=False), ChannelNorm(channels),
                       nn.SiLU()]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.output = Linear(depth, stem * stem * image_shape[2])
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        side, _, channels = self.shape
        grid = side // self.patch
        maps = self.input(features).view(-1, SMALLEST, SMALLEST, self.channels).permute(0, 3, 1, 2)
        patches = self.output(self.layers(maps).permute(0, 2, 3, 1))
        patches = patches.view(-1, grid, grid, self.patch, self.patch, channels).transpose(2, 3)
        return patches.reshape(-1, side, side, channels) + 0.5
