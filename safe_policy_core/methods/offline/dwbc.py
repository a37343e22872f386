"""DWBC: discriminator-weighted offline imitation learning (Xu et al., ICML 2022).

The discriminator sees the policy's own log-likelihood of an action beside state and action, and is trained
as positive against unlabelled data, a share eta of which is positive. Weights and their bounds are those of
the authors' code: the outputs are kept in [0.1, 0.9], and an unlabelled step that looks more unlike the
demonstrations than like them is not imitated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import DwbcConfig
from safe_policy_core.methods.offline.demonstrations import DemonstrationsLearner, discriminator, halves
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.actor import GaussianActor

LIKELIHOOD_RANGE = (-20.0, 10.0)
"""Log-likelihoods are clipped to it and scaled to [0, 1]."""
CERTAINTY = (0.1, 0.9)


def positive_unlabelled_loss(safe: Tensor, unlabelled: Tensor, share: float) -> Tensor:
    """eta E_safe[-log d] + E_unlabelled[-log(1 - d)] - eta E_safe[-log(1 - d)], from probabilities d."""
    return -(share * (safe.log() - (1 - safe).log()).mean() + (1 - unlabelled).log().mean())


def imitation_weights(safe: Tensor, unlabelled: Tensor, imitation: float, share: float) -> tuple[Tensor, Tensor]:
    """What the log-likelihoods of both kinds of steps are multiplied by, from probabilities d.

    Demonstrations: alpha - eta / (d (1 - d)) - 1. Unlabelled: 1 / (1 - d) - 1, and 0 where d is below a half.
    """
    return (imitation - share / (safe * (1 - safe)) - 1,
            torch.where(unlabelled < 0.5, torch.zeros_like(unlabelled), 1 / (1 - unlabelled) - 1))


class DwbcModel(OfflineModel):
    """A Gaussian actor and a discriminator of (state, action, log-likelihood)."""

    def __init__(self, specs: Specs, config: DwbcConfig) -> None:
        super().__init__(specs, config)
        self.actor = GaussianActor(self.inputs, self.action_dim, config.units, config.layers)
        self.discriminator = discriminator(self.inputs + self.action_dim + 1, config.units, config.layers)

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = normal_noise(distribution.mean.shape, generator, state.device)
        return Decision(distribution.mode if deterministic else distribution.sample(normal))


class DwbcLearner(DemonstrationsLearner):
    """One step of the discriminator and of the actor."""

    method = "dwbc"
    config_class = DwbcConfig
    model_class = DwbcModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        return {"discriminator": (self.model.discriminator, self.config.learning_rate),
                "actor": (self.model.actor, self.config.actor_learning_rate)}

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        likelihood = model.actor(steps.state).log_probability(steps.action)
        low, high = LIKELIHOOD_RANGE
        seen = (likelihood.detach().clamp(low, high).unsqueeze(-1) - low) / (high - low)
        logits = model.discriminator(torch.cat([steps.state, steps.action, seen], -1)).squeeze(-1)
        safe, unlabelled = halves(logits.sigmoid().clamp(*CERTAINTY))
        loss = positive_unlabelled_loss(safe, unlabelled, config.positive_share)
        self.optimisers["discriminator"].step(loss)
        weights = torch.cat(imitation_weights(safe.detach(), unlabelled.detach(), config.imitation,
                                              config.positive_share))
        imitated, borrowed = halves(weights * likelihood)
        actor_loss = -imitated.mean() - borrowed.mean()
        self.optimisers["actor"].step(actor_loss)
        return {"discriminator_loss": loss.detach(), "actor_loss": actor_loss.detach(),
                "safe": safe.detach().mean(), "unlabelled": unlabelled.detach().mean()}
