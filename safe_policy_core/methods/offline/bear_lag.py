"""BEAR-Lag: bootstrapping error accumulation reduction (Kumar et al. 2019) with a PID Lagrangian for the cost.

The policy is free within the support of the data: the maximum mean discrepancy between its actions and
those of a model of the data stays below a limit, by a dual variable (algorithm 1). Actions are compared
before their tanh, as in the authors' code. See `lagrangian` for how a cost enters.
Acting always draws; asked to be deterministic, too, the best of several draws is taken.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import BearLagConfig
from safe_policy_core.methods.offline.lagrangian import LagrangianLearner, LagrangianModel
from safe_policy_core.methods.offline.model import Steps
from safe_policy_core.networks.actor import SquashedActor
from safe_policy_core.networks.paired import follow

LOG_DUAL_RANGE = 5.0


def mean_discrepancy(left: Tensor, right: Tensor, width: float) -> Tensor:
    """Maximum mean discrepancy of (M, B, size) samples under exp(-d^2 / (2 width)), for each of the B pairs.

    The sampled estimate of section 5: the square root of E k(x, x') + E k(y, y') - 2 E k(x, y).
    """
    both = torch.cat([left, right]).transpose(0, 1)
    squares = both.square().sum(-1)
    # For actions near each other |x|^2 + |y|^2 - 2 x y may come out slightly below zero.
    distances = torch.baddbmm(squares.unsqueeze(1) + squares.unsqueeze(2), both, both.mT, alpha=-2).clamp(min=0)
    kernel = (distances * (-0.5 / width)).exp()
    sign = torch.cat([left.new_full((len(left),), 1 / len(left)), right.new_full((len(right),), -1 / len(right))])
    return ((kernel @ sign) @ sign).clamp(min=0).add(1e-6).sqrt()


class BearLagModel(LagrangianModel):
    """`log_dual`: the logarithm of the discrepancy's dual variable."""

    log_dual: Tensor

    def __init__(self, specs: Specs, config: BearLagConfig) -> None:
        super().__init__(specs, config)
        self.noise_size = self.action_dim
        self.actor = SquashedActor(self.inputs, self.action_dim, config.units, config.layers)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.register_buffer("log_dual", torch.zeros(()))

    def draw(self, state: Tensor, normal: Tensor, slow: bool = False) -> Tensor:
        return (self.target_actor if slow else self.actor)(state).raw_sample(normal).tanh()


class BearLagLearner(LagrangianLearner):
    """The policy climbs Q^r - lambda Q^c - alpha (MMD - limit)."""

    method = "bear_lag"
    config_class = BearLagConfig
    model_class = BearLagModel

    def actor_loss(self, steps: Steps) -> tuple[Tensor, dict[str, Any]]:
        model, config = self.model, self.config
        shape = (config.mmd_samples, len(steps.state))
        with torch.no_grad():
            data = model.vae.candidates(steps.state, torch.randn(*shape, model.vae.latent_dim, device=self.device))
        raw = model.actor(steps.state).raw_sample(torch.randn(*shape, model.action_dim, device=self.device))
        discrepancy = mean_discrepancy(data, raw, config.mmd_width).mean()
        penalised, excess = self.penalised(model.critics(steps.state, raw[0].tanh()))
        dual = model.log_dual.exp()
        loss = penalised + dual * (discrepancy - config.mmd_limit)
        with torch.no_grad():
            model.log_dual.add_(config.dual_learning_rate * dual * (discrepancy - config.mmd_limit))
            model.log_dual.clamp_(-LOG_DUAL_RANGE, LOG_DUAL_RANGE)
        return loss, {"excess": excess, "discrepancy": discrepancy.detach(), "dual": dual}

    def follow(self) -> None:
        follow(self.model.target_actor, self.model.actor, self.config.target_rate)
