"""Observations as the flat vectors in [-1, 1] that trajectories are made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.world_model.observation import split_specs

NARROWEST = 1e-3
"""Half the range [unit of the vector] below which an element counts as constant and is not blown up."""
_IMAGES_FOR_COMPONENTS = 1000


class FeatureMap(nn.Module):
    """{name: (N, *spec.shape)} -> (N, `size`): vectors, then principal components of images, each element in [-1, 1].

    The range of every element and the components come from the training data (`fit`) and are
    buffers, so that a checkpoint carries them. Values outside the range are kept as they are.
    """

    low: Tensor
    high: Tensor

    def __init__(self, specs: Specs, image_features: int) -> None:
        super().__init__()
        self.images, self.vectors = split_specs(specs.observation)
        self.size = sum(spec.shape[0] for spec in self.vectors.values()) + image_features * len(self.images)
        self.register_buffer("low", -torch.ones(self.size))
        self.register_buffer("high", torch.ones(self.size))
        for name, spec in self.images.items():
            self.register_buffer(f"mean_{name}", torch.zeros(int(np.prod(spec.shape))))
            self.register_buffer(f"components_{name}", torch.zeros(int(np.prod(spec.shape)), image_features))

    @torch.no_grad()
    def fit(self, observation: Mapping[str, np.ndarray], rng: np.random.Generator) -> None:
        """Takes components and ranges from (N, ...) observations."""
        for name in self.images:
            flat = _flat_image(observation[name])
            chosen = torch.as_tensor(flat[rng.permutation(len(flat))[:_IMAGES_FOR_COMPONENTS]])
            mean, components = getattr(self, f"mean_{name}"), getattr(self, f"components_{name}")
            mean.copy_(chosen.mean(0))
            # With fewer images than features the other components stay zero.
            found = torch.linalg.svd(chosen - mean, full_matrices=False)[2][:components.shape[1]].T
            components[:, :found.shape[1]] = found
        raw = torch.as_tensor(self._raw(observation))
        low, high = raw.amin(0), raw.amax(0)
        half = ((high - low) / 2).clamp(min=NARROWEST)
        self.low.copy_((high + low) / 2 - half)
        self.high.copy_((high + low) / 2 + half)

    def array(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, `size`) float32 features of arrays in memory."""
        scaled = 2 * (torch.as_tensor(self._raw(observation)) - self.low) / (self.high - self.low) - 1
        return scaled.numpy()

    def vector_parts(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """(..., `size`) features -> the vector observations in their own units; images cannot be had back."""
        raw = (features + 1) / 2 * (self.high - self.low).numpy() + self.low.numpy()
        ends = np.cumsum([spec.shape[0] for spec in self.vectors.values()])
        return {name: raw[..., end - spec.shape[0]:end]
                for (name, spec), end in zip(self.vectors.items(), ends, strict=True)}

    def _raw(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        parts = [np.asarray(observation[name], np.float32) for name in self.vectors]
        for name in self.images:
            images, mean = observation[name], getattr(self, f"mean_{name}").numpy()
            components = getattr(self, f"components_{name}").numpy()
            # In pieces: as floats, all pictures of a dataset together would fill the memory.
            parts.append(np.concatenate([(_flat_image(images[begin:begin + 1024]) - mean) @ components
                                         for begin in range(0, len(images), 1024)]))
        return np.concatenate(parts, -1)


def _flat_image(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, np.float32).reshape(len(images), -1) / 255
