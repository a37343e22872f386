"""The network of behaviour cloning: images and vectors to a Gaussian over actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.bc.config import BcConfig
from safe_policy_core.networks.actor import GaussianActor, PlainActor
from safe_policy_core.networks.distributions import BoundedGaussian
from safe_policy_core.world_model.config import WorldModelConfig
from safe_policy_core.world_model.observation import ObservationEncoder, split_specs


class BcModel(nn.Module):
    """{name: (N, *spec.shape)} -> `BoundedGaussian` over (N, action_dim). No memory: one observation decides.

    Vectors without images go through a `PlainActor`.
    """

    def __init__(self, specs: Specs, config: BcConfig) -> None:
        super().__init__()
        images, vectors = split_specs(specs.observation)
        self.vectors, action_dim = tuple(vectors), specs.action.shape[0]
        if images:
            sizes = WorldModelConfig(depth=config.depth, stem=config.stem, units=config.units, layers=1)
            self.encoder: ObservationEncoder | None = ObservationEncoder(specs.observation, sizes)
            self.actor: nn.Module = GaussianActor(self.encoder.size, action_dim, config.units, config.layers)
        else:
            size = sum(spec.shape[0] for spec in vectors.values())
            self.encoder, self.actor = None, PlainActor(size, action_dim, config.units, config.layers)

    def _state(self, observation: Mapping[str, Tensor]) -> Tensor:
        if self.encoder is not None:
            return self.encoder(observation)
        return torch.cat([observation[name] for name in self.vectors], -1)

    def update_statistics(self, observation: Mapping[str, Tensor]) -> None:
        """Shows the standardisers a training batch."""
        if self.encoder is not None:
            self.encoder.update_statistics(observation)
        else:
            cast(PlainActor, self.actor).update_statistics(self._state(observation))

    def forward(self, observation: Mapping[str, Tensor]) -> BoundedGaussian:
        return self.actor(self._state(observation))


def shift_images(images: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """(N, H, W, C) uint8, each moved by up to `largest` pixels both ways; the border is repeated (Kostrikov 2021)."""
    count, height, width, _ = images.shape
    padded = functional.pad(images.permute(0, 3, 1, 2).float(), (largest,) * 4, mode="replicate").to(torch.uint8)
    offset = torch.randint(0, 2 * largest + 1, (2, count, 1), generator=generator)
    rows, columns = offset[0] + torch.arange(height), offset[1] + torch.arange(width)
    return padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
