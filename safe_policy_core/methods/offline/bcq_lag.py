"""BCQ-Lag: batch-constrained deep Q-learning (Fujimoto et al. 2019) with a PID Lagrangian for the cost.

Actions of a variational auto-encoder of the data are moved by at most `perturbation`, and the best of
several is taken (eq. 11). See `lagrangian` for how a cost enters.
Acting always draws; asked to be deterministic, too, the best of several draws is taken.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import BcqLagConfig
from safe_policy_core.methods.offline.lagrangian import LagrangianLearner, LagrangianModel
from safe_policy_core.methods.offline.model import Steps
from safe_policy_core.networks.paired import PairedMlp, follow


class BcqLagModel(LagrangianModel):
    """`actor` is the perturbation model xi(s, a)."""

    def __init__(self, specs: Specs, config: BcqLagConfig) -> None:
        super().__init__(specs, config)
        self.noise_size = self.vae.latent_dim
        self.actor = PairedMlp(self.inputs, self.action_dim, self.action_dim, config.units, config.layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)

    def perturbed(self, state: Tensor, action: Tensor, slow: bool = False) -> Tensor:
        """a + xi(s, a), xi in [-perturbation, perturbation], clipped to [-1, 1]."""
        shift = (self.target_actor if slow else self.actor)(state, action)[0].tanh()
        return (action + self.config.perturbation * shift).clamp(-1, 1)

    def draw(self, state: Tensor, normal: Tensor, slow: bool = False) -> Tensor:
        return self.perturbed(state, self.vae.candidates(state, normal).tanh(), slow)


class BcqLagLearner(LagrangianLearner):
    """The perturbation climbs Q^r - lambda Q^c (eq. 12 with the penalised value)."""

    method = "bcq_lag"
    config_class = BcqLagConfig
    model_class = BcqLagModel

    def actor_loss(self, steps: Steps) -> tuple[Tensor, dict[str, Any]]:
        with torch.no_grad():
            normal = torch.randn(len(steps.state), self.model.noise_size, device=self.device)
            action = self.model.vae.candidates(steps.state, normal).tanh()
        values = self.model.critics(steps.state, self.model.perturbed(steps.state, action))
        loss, excess = self.penalised(values)
        return loss, {"excess": excess}

    def follow(self) -> None:
        follow(self.model.target_actor, self.model.actor, self.config.target_rate)
