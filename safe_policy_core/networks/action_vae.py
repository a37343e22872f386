"""A conditional variational auto-encoder of the actions taken at a state (BCQ, Fujimoto et al. 2019, section 5)."""

from __future__ import annotations

from torch import Tensor, nn

from safe_policy_core.networks.paired import PairedMlp

LATENT_RANGE = 0.5
"""Latents for new actions are clipped to +-0.5, the likely part of the prior (BCQ, appendix D)."""
LOG_DEVIATION = (-4.0, 15.0)


class ActionVae(nn.Module):
    """state, action -> latent -> action. kl_weight: of the divergence from the prior against the squared error."""

    def __init__(self, inputs: int, action_dim: int, units: int, kl_weight: float = 0.5) -> None:
        super().__init__()
        self.latent_dim, self.kl_weight = 2 * action_dim, kl_weight
        self.encoder = PairedMlp(inputs, action_dim, 2 * self.latent_dim, units, 2)
        self.decoder = PairedMlp(inputs, self.latent_dim, action_dim, units, 2)

    def encode(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(B, inputs), (*candidates, B, action_dim) -> mean and log deviation, each (*candidates, B, latent_dim)."""
        mean, log_deviation = self.encoder(state, action)[0].chunk(2, -1)
        return mean, log_deviation.clamp(*LOG_DEVIATION)

    def decode(self, state: Tensor, latent: Tensor) -> Tensor:
        """The action before its tanh: (B, inputs), (*candidates, B, latent_dim) -> (*candidates, B, action_dim)."""
        return self.decoder(state, latent)[0]

    def candidates(self, state: Tensor, normal: Tensor) -> Tensor:
        """Actions before tanh as the data would have them, from standard normal (*candidates, B, latent_dim)."""
        return self.decode(state, normal.clamp(-LATENT_RANGE, LATENT_RANGE))

    def loss(self, state: Tensor, action: Tensor, normal: Tensor) -> Tensor:
        """Mean squared error of the reconstruction + kl_weight * mean KL, both over elements (as in BCQ's code)."""
        mean, log_deviation = self.encode(state, action)
        again = self.decode(state, mean + log_deviation.exp() * normal).tanh()
        return (again - action).square().mean() + self.kl_weight * latent_kl(mean, log_deviation).mean()


def latent_kl(mean: Tensor, log_deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation^2) || N(0, 1)) [nats], averaged over the latent's elements -> (...)."""
    return (0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation).mean(-1)
