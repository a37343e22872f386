"""The network of behaviour cloning: images and vectors to a Gaussian over actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.bc.config import BcConfig
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.distributions import BoundedGaussian
from safe_policy_core.networks.mlp import relu_mlp
from safe_policy_core.networks.normalisers import Standardiser
from safe_policy_core.world_model.config import WorldModelConfig
from safe_policy_core.world_model.observation import ObservationEncoder, split_specs


class BcModel(nn.Module):
    """{name: (N, *spec.shape)} -> `BoundedGaussian` over (N, action_dim). No memory: one observation decides.

    Vectors alone go through a plain network: an encoder that squashes and normalises them, as images need it beside
    theirs, imitated drivers worse who steer by small differences (PointGoal1: clones of the safe paid 14 to 33 an
    episode with either, 3 to 6 without).
    """

    def __init__(self, specs: Specs, config: BcConfig) -> None:
        super().__init__()
        images, vectors = split_specs(specs.observation)
        action_dim = specs.action.shape[0]
        if images:
            sizes = WorldModelConfig(depth=config.depth, stem=config.stem, units=config.units, layers=1)
            self.encoder: ObservationEncoder | _Vectors = ObservationEncoder(specs.observation, sizes)
            self.actor: nn.Module = GaussianActor(self.encoder.size, action_dim, config.units, config.layers)
        else:
            self.encoder = _Vectors({name: spec.shape[0] for name, spec in vectors.items()})
            self.actor = _PlainActor(self.encoder.size, action_dim, config.units, config.layers)

    def forward(self, observation: Mapping[str, Tensor]) -> BoundedGaussian:
        return self.actor(self.encoder(observation))


class _Vectors(nn.Module):
    """{name: (N, size)} -> (N, all sizes), standardised."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.size = sum(sizes.values())
        self.standardisers = nn.ModuleDict({name: Standardiser(size) for name, size in sizes.items()})

    def update_statistics(self, observation: Mapping[str, Tensor]) -> None:
        for name, standardise in self.standardisers.items():
            cast(Standardiser, standardise).update(observation[name])

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([standardise(observation[name]) for name, standardise in self.standardisers.items()], -1)


class _PlainActor(nn.Module):
    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__()
        self.network = relu_mlp(inputs, 2 * action_dim, units, layers)

    def forward(self, state: Tensor) -> BoundedGaussian:
        return BoundedGaussian(self.network(state))


def shift_images(images: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """(N, H, W, C) uint8, each moved by up to `largest` pixels both ways; the border is repeated (Kostrikov 2021)."""
    count, height, width, _ = images.shape
    padded = functional.pad(images.permute(0, 3, 1, 2).float(), (largest,) * 4, mode="replicate").to(torch.uint8)
    offset = torch.randint(0, 2 * largest + 1, (2, count, 1), generator=generator)
    rows, columns = offset[0] + torch.arange(height), offset[1] + torch.arange(width)
    return padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
