"""The actor's two losses (eq. 20 offline, eq. 23 online) and the penalty both share."""

from __future__ import annotations

import torch
from torch import Tensor

from safe_policy_core.methods.fosp.equations import offline_weight, offline_weight_product, online_weight
from safe_policy_core.methods.fosp.estimators import Advantages
from safe_policy_core.methods.fosp.model import FospModel
from safe_policy_core.world_model import ImaginedSteps, RealSteps


def imitation_loss(model: FospModel, real: RealSteps, reward: Advantages, cost: Advantages
                   ) -> tuple[Tensor, dict[str, Tensor]]:
    """First two terms of eq. 20: -E[w log pi(a | s) + eta entropy] on recorded actions at posterior states."""
    config = model.config
    with torch.no_grad():
        feasibility = model.feasibility(real.features)
        form = offline_weight if config.weight_form == "sum" else offline_weight_product
        weight = form(feasibility, reward.real, cost.real, config.reward_temperature, config.cost_temperature,
                      config.largest_weight)
    distribution = model.actor(real.features)
    likelihood, entropy = distribution.log_probability(real.action), distribution.entropy()
    metrics = {"actor/likelihood": real.mean(likelihood), "actor/weight": real.mean(weight),
               "actor/entropy": real.mean(entropy), "actor/feasibility": real.mean(feasibility),
               "actor/error": real.mean((distribution.mode - real.action).square().mean(-1))}
    return -real.mean(weight * likelihood + config.entropy * entropy), metrics


def policy_gradient_loss(model: FospModel, imagined: ImaginedSteps, reward: Advantages, cost: Advantages
                         ) -> tuple[Tensor, dict[str, Tensor]]:
    """-E[w log pi'(a | s) + eta entropy] with w of eq. 23 on the new actor's own imagined actions.

    The weight of eq. 23 is negative for bad actions. On recorded actions that would push the
    density away without bound; on the policy's own draws it is the policy gradient, as long as the
    likelihood is that of the draws, which are clipped at the action's bounds.
    """
    config = model.config
    states = imagined.features[:-1]
    with torch.no_grad():
        feasibility = model.feasibility(states)
        weight = online_weight(feasibility, reward.imagined, cost.imagined, config.reward_temperature,
                               config.cost_temperature)
    distribution = model.actor(states)
    likelihood, entropy = distribution.draw_log_probability(imagined.action), distribution.entropy()
    metrics = {"actor/online_weight": imagined.mean(weight), "actor/online_entropy": imagined.mean(entropy)}
    return -imagined.mean(weight * likelihood + config.entropy * entropy), metrics


def penalty_loss(model: FospModel, features: Tensor, imagined: ImaginedSteps) -> tuple[Tensor, Tensor]:
    """u Phi(V^c) of eq. 20 on imagined states s^1 .. s^H: (penalty, mean constraint).

    features: (H + 1, N, features) of the rollout WITH its graph, so that the gradient runs through
    the dynamics to the actor's reparametrised actions (at recorded states the term is constant).
    """
    arrived = features[1:]
    with torch.no_grad():
        feasibility = model.feasibility(arrived)
    if model.config.augmented_lagrangian:
        constraint = model.cost.value(arrived) - model.config.cost_limit
        penalty = model.lagrangian.phi(constraint)
    else:
        constraint = penalty = model.reachability.violation_probability(arrived)
    return imagined.mean(feasibility * penalty), imagined.mean(constraint).detach()
