"""How far several priors disagree: what an actor trained offline is charged for leaving the data.

FOSP's Appendix F for its baselines, after Yu et al. 2020: r^(s, a) = r(s) - alpha std_i log p_i(z | h).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from safe_policy_core.networks.distributions import unimix_log_probabilities
from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.world_model import LatentState, Rssm


class Disagreement(nn.Module):
    """`members` priors p_i(z | h) that differ in their first weights, trained on the posteriors' draws."""

    def __init__(self, rssm: Rssm, members: int) -> None:
        super().__init__()
        config = rssm.config
        self.sizes, self.shape = (config.deter, rssm.stochastic_size), (config.latents, config.classes)
        self.unimix = config.unimix
        self.members = nn.ModuleList(Mlp(config.deter, rssm.stochastic_size, config.units, 1) for _ in range(members))

    def log_likelihoods(self, deter: Tensor, stochastic: Tensor) -> Tensor:
        """log p_i(z | h) summed over the latents: (members, ...)."""
        drawn = stochastic.unflatten(-1, self.shape)
        return torch.stack([
            (unimix_log_probabilities(member(deter).unflatten(-1, self.shape), self.unimix) * drawn).sum((-2, -1))
            for member in self.members])

    def loss(self, states: LatentState) -> Tensor:
        """Mean negative log-likelihood of posterior states, of all members together."""
        return -self.log_likelihoods(states.deter.detach(), states.stochastic.detach()).mean()

    def forward(self, features: Tensor) -> Tensor:
        """Standard deviation over the members [nats]: (..., features) -> (...)."""
        deter, stochastic = features[..., :sum(self.sizes)].split(self.sizes, -1)
        return self.log_likelihoods(deter, stochastic).std(0)
