"""The world model with its heads and its loss (DreamerV3 with a cost head; SafeDreamer, FOSP Appendix F)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.networks.distributions import balanced_kl, bernoulli_negative_log_likelihood
from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.networks.symlog import BINS, TwoHot
from safe_policy_core.world_model.config import WorldModelConfig
from safe_policy_core.world_model.observation import ObservationDecoder, ObservationEncoder
from safe_policy_core.world_model.rssm import LatentState, Rssm

Batch = dict[str, Tensor]
_FIELDS = ("action", "reward", "cost", "is_first", "is_terminal", "next_action", "has_next_action")


def to_batch(batch: Mapping[str, np.ndarray], specs: Specs, device: torch.device | str) -> Batch:
    """The fields a world model trains on, as tensors. Raises `DatasetError` for a missing or misshapen one."""
    shapes = {name: spec.shape for name, spec in specs.observation.items()}
    shapes |= {name: specs.action.shape if name in ("action", "next_action") else () for name in _FIELDS}
    tensors = {}
    for name, shape in shapes.items():
        if name not in batch:
            raise DatasetError(f"batch: missing {name}, expected {sorted(shapes)}")
        array = np.asarray(batch[name])
        if array.ndim != 2 + len(shape) or array.shape[2:] != shape:
            raise DatasetError(f"batch {name}: expected shape (batch, length, *{shape}), got {array.shape}")
        tensors[name] = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    return tensors


class WorldModel(nn.Module):
    """Encoder, dynamics and heads. Heads of state t predict what was received on arriving there."""

    def __init__(self, specs: Specs, config: WorldModelConfig, context_size: int = 0) -> None:
        """context_size: of `LatentState.context`, which the heads see beside the latent state."""
        super().__init__()
        self.specs, self.config = specs, config
        self.encoder = ObservationEncoder(specs.observation, config)
        self.rssm = Rssm(config, self.encoder.size, specs.action.shape[0])
        self.decoder = ObservationDecoder(specs.observation, config, self.rssm.feature_size)
        self.feature_size = inputs = self.rssm.feature_size + context_size
        self.two_hot = TwoHot()
        # The reward head starts at zero, so that no imagined reward is invented before one was seen.
        self.reward_head = Mlp(inputs, BINS, config.units, config.layers, output_scale=0.0)
        self.cost_head = Mlp(inputs, BINS, config.units, config.layers, output_scale=0.0)
        self.continue_head = Mlp(inputs, 1, config.units, config.layers)

    def reward(self, features: Tensor) -> Tensor:
        """Expected reward on arriving at (..., features) -> (...)."""
        return self.two_hot.mean(self.reward_head(features))

    def cost(self, features: Tensor) -> Tensor:
        """Expected cost on arriving, never negative -> (...)."""
        return self.two_hot.mean(self.cost_head(features)).clamp(min=0)

    def continuation(self, features: Tensor) -> Tensor:
        """Probability that the episode was not terminated on arriving -> (...)."""
        return self.continue_head(features).squeeze(-1).sigmoid()

    def observe(self, batch: Batch, generator: torch.Generator) -> tuple[LatentState, Tensor, Tensor]:
        """Posterior states (B, L, ...), log posteriors and log priors of a batch of sequences."""
        noise = self.rssm.noise(tuple(batch["is_first"].shape), generator)
        return self.rssm.observe(self.encoder(batch), batch["action"], batch["is_first"], noise)

    def loss(self, batch: Batch, generator: torch.Generator, context: Tensor | None = None
             ) -> tuple[Tensor, LatentState, dict[str, Tensor]]:
        """Returns the scalar loss, the posterior states (B, L, ...) and the terms by name (means, detached).

        context: (B, L, context_size) of the same batch, which becomes that of the states.
        """
        config = self.config
        states, log_posterior, log_prior = self.observe(batch, generator)
        states = states.with_context(context)
        features, latent = states.features, states.latent
        kl_loss, kl = balanced_kl(log_posterior, log_prior, config.free_bits, config.dynamics_scale,
                                  config.representation_scale)
        cost = batch["cost"]
        cost_weight = torch.where(cost >= 1, config.cost_weight, 1.0)
        terms = {
            "vector": config.vector_scale * self.decoder.vector_loss(latent, self.encoder.scaled_vectors(batch))
            if self.encoder.vectors is not None else kl_loss.new_zeros(()),
            "reward": self.two_hot.negative_log_likelihood(self.reward_head(features), batch["reward"]),
            "cost": cost_weight * self.two_hot.negative_log_likelihood(self.cost_head(features), cost),
            "continue": bernoulli_negative_log_likelihood(self.continue_head(features).squeeze(-1),
                                                          1 - batch["is_terminal"].float()),
            "kl": kl_loss,
        }
        if self.decoder.images:
            terms["image"] = self._image_loss(latent, batch, generator)
        means = {name: term.mean() for name, term in terms.items()}
        loss = torch.stack(list(means.values())).sum()
        metrics = {f"model/{name}": value.detach() for name, value in means.items()}
        return loss, states, {**metrics, "model/kl_nats": kl.mean()}

    def _image_loss(self, latent: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """Image losses of a random share of the frames."""
        flat = latent.flatten(0, 1)
        images = {name: batch[name].flatten(0, 1) for name in self.decoder.images}
        count = max(1, round(len(flat) * self.config.decoded_fraction))
        if count < len(flat):
            chosen = torch.randperm(len(flat), generator=generator, device=flat.device)[:count]
            flat, images = flat[chosen], {name: image[chosen] for name, image in images.items()}
        return self.decoder.image_loss(flat, images)
