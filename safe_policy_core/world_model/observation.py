"""Observations to embeddings and back: any mix of uint8 images and float vectors, as the specs say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Spec
from safe_policy_core.networks.convolution import ImageDecoder, ImageEncoder
from safe_policy_core.networks.mlp import Hidden, Mlp, initialise
from safe_policy_core.networks.normalisers import Standardiser
from safe_policy_core.networks.symlog import symexp, symlog
from safe_policy_core.world_model.config import WorldModelConfig


def split_specs(specs: Mapping[str, Spec]) -> tuple[dict[str, Spec], dict[str, Spec]]:
    """(images, vectors) by name. Raises `ConfigurationError` for a field that is neither."""
    images = {name: spec for name, spec in specs.items() if spec.dtype == "uint8" and len(spec.shape) == 3}
    vectors = {name: spec for name, spec in specs.items() if spec.dtype.startswith("float") and len(spec.shape) == 1}
    if other := sorted(specs.keys() - images.keys() - vectors.keys()):
        spec = specs[other[0]]
        raise ConfigurationError(f"observation {other[0]}: shape {spec.shape} of {spec.dtype} is not supported, "
                                 "expected a (side, side, channels) uint8 image or a float vector")
    return images, vectors


class ObservationEncoder(nn.Module):
    """{name: (..., *spec.shape)} -> (..., `size`). Vectors are standardised, then symlog'd."""

    def __init__(self, specs: Mapping[str, Spec], config: WorldModelConfig) -> None:
        super().__init__()
        image_specs, vector_specs = split_specs(specs)
        self.images = nn.ModuleDict({name: ImageEncoder(spec.shape, config.depth, config.stem)
                                     for name, spec in image_specs.items()})
        self.standardisers = nn.ModuleDict({name: Standardiser(spec.shape[0]) for name, spec in vector_specs.items()})
        widths = [spec.shape[0] for spec in vector_specs.values()]
        self.vectors = nn.Sequential(*(Hidden(sum(widths) if index == 0 else config.units, config.units)
                                       for index in range(config.layers))) if widths else None
        if self.vectors is not None:
            initialise(self.vectors)
        sizes = [cast(ImageEncoder, encoder).size for encoder in self.images.values()]
        self.size = sum(sizes) + (config.units if widths else 0)

    def scaled_vectors(self, observation: Mapping[str, Tensor]) -> Tensor:
        """(..., sum of widths): all vectors, standardised and symlog'd; the vector decoder's target."""
        return symlog(torch.cat([standardise(observation[name])
                                 for name, standardise in self.standardisers.items()], -1))

    def update_statistics(self, observation: Mapping[str, Tensor]) -> None:
        """Shows the standardisers a training batch."""
        for name, standardise in self.standardisers.items():
            cast(Standardiser, standardise).update(observation[name])

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for name, encoder in self.images.items():
            image = observation[name]
            parts.append(encoder(image.flatten(0, -4) if image.dim() > 4 else image).view(*image.shape[:-3], -1))
        if self.vectors is not None:
            parts.append(self.vectors(self.scaled_vectors(observation)))
        return torch.cat(parts, -1)


class ObservationDecoder(nn.Module):
    """Features -> reconstructions."""

    def __init__(self, specs: Mapping[str, Spec], config: WorldModelConfig, inputs: int) -> None:
        super().__init__()
        image_specs, vector_specs = split_specs(specs)
        self.images = nn.ModuleDict({name: ImageDecoder(spec.shape, inputs, config.depth, config.stem)
                                     for name, spec in image_specs.items()})
        self.colour_scale = config.colour_scale
        self.widths = {name: spec.shape[0] for name, spec in vector_specs.items()}
        self.vectors = Mlp(inputs, sum(self.widths.values()), config.units, config.layers) if self.widths else None

    def image_loss(self, features: Tensor, observation: Mapping[str, Tensor]) -> Tensor:
        """Squared error of (N, ...) images in [0, 1], SUMMED over pixels so that small objects weigh -> (N,).

        The error of a pixel is split into its mean over the channels (brightness) and the rest (colour, weighted).
        """
        loss = features.new_zeros(len(features))
        for name, decoder in self.images.items():
            error = decoder(features) - observation[name].float() / 255
            brightness = error.mean(-1).square().sum((1, 2)) * error.shape[-1]
            total = error.square().flatten(1).sum(1)
            loss = loss + self.colour_scale * total + (1 - self.colour_scale) * brightness
        return loss

    def vector_loss(self, features: Tensor, scaled: Tensor) -> Tensor:
        """Squared error to `ObservationEncoder.scaled_vectors`, summed over elements -> (...)."""
        if self.vectors is None:
            return features.new_zeros(features.shape[:-1])
        return (self.vectors(features) - scaled).square().sum(-1)

    def decode(self, features: Tensor, encoder: ObservationEncoder) -> dict[str, Tensor]:
        """(..., features) -> observations: images as uint8, vectors in their own units."""
        decoded: dict[str, Tensor] = {}
        for name, decoder in self.images.items():
            pixels = (decoder(features.reshape(-1, features.shape[-1])).clamp(0, 1) * 255).round().to(torch.uint8)
            decoded[name] = pixels.view(*features.shape[:-1], *pixels.shape[1:])
        if self.vectors is not None:
            parts = symexp(self.vectors(features)).split(list(self.widths.values()), -1)
            for name, part in zip(self.widths, parts, strict=True):
                decoded[name] = cast(Standardiser, encoder.standardisers[name]).inverse(part)
        return decoded
