"""RGM: mind the gap, offline policy optimisation for imperfect rewards (Li et al., ICLR 2023), with the KL divergence.

Upper level: a bounded correction of the reward makes the optimal policy's state-action distribution that of
the demonstrations. Lower level: the dual of reward maximisation near the data. Both in turns, the upper one
slowly. With the KL divergence the optimal ratio to the data (eq. 13) is exp(e / alpha) up to its mean, e being
the corrected reward's residual r + gamma V(s') - V(s); here it is normalised over the batch, which makes the
dual (eq. 12) a log-mean-exp.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.config import RgmConfig
from safe_policy_core.methods.offline.demonstrations import DemonstrationsLearner, discriminator, halves
from safe_policy_core.methods.offline.model import Decision, OfflineModel, Steps, normal_noise
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.mlp import relu_mlp

_ROWS_AT_ONCE = 65_536


def log_ratio(residual: Tensor, divergence: float) -> Tensor:
    """log of the optimal policy's distribution over the data's (eq. 13), of mean 1 over the batch."""
    return (residual / divergence).log_softmax(0) + math.log(len(residual))


def gap(residual: Tensor, log_demonstrations: Tensor, divergence: float) -> Tensor:
    """KL between the optimal policy's distribution and the demonstrations' (eq. 17), w = exp(log_demonstrations)."""
    ratio = log_ratio(residual, divergence)
    return (ratio.exp() * (ratio - log_demonstrations)).mean()


def dual(residual: Tensor, first_values: Tensor, divergence: float, discount: float) -> Tensor:
    """(1 - gamma) E[V(s_0)] + alpha log E[exp(e / alpha)] (eq. 12 for the KL divergence)."""
    log_mean = (residual / divergence).logsumexp(0) - math.log(len(residual))
    return (1 - discount) * first_values.mean() + divergence * log_mean


class RgmModel(OfflineModel):
    """actor, value V, correction of the reward, and a discriminator of (state, action)."""

    def __init__(self, specs: Specs, config: RgmConfig) -> None:
        super().__init__(specs, config)
        sizes = (config.units, config.layers)
        self.actor = GaussianActor(self.inputs, self.action_dim, *sizes)
        self.value = relu_mlp(self.inputs, 1, *sizes)
        self.correction = relu_mlp(self.inputs + self.action_dim + 1, 1, *sizes)
        self.discriminator = discriminator(self.inputs + self.action_dim, *sizes)

    def corrected(self, state: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """What is added to the scaled rewards (B,) of standardised states and actions."""
        given = torch.cat([state, action, reward.unsqueeze(-1)], -1)
        return self.config.largest_correction * self.correction(given).squeeze(-1).tanh()

    @torch.no_grad()
    def missing_rewards(self, dataset: DsrlDataset) -> np.ndarray:
        """(N,) float32: by how much each step's reward is too high, in the scale of training; at least 0.

        DSPO's CDT-V takes them for costs (its appendix on baselines).
        """
        found = np.empty(dataset.rows, np.float32)
        for begin in range(0, dataset.rows, _ROWS_AT_ONCE):
            rows = slice(begin, begin + _ROWS_AT_ONCE)
            state, action, reward = (torch.as_tensor(values[rows], device=self.horizon.device) for values in
                                     (dataset.observations, dataset.actions, dataset.rewards))
            correction = self.corrected(self.standardiser(state), action, reward * self.reward_factor)
            found[rows] = (-correction).clamp(min=0).cpu().numpy()
        return found

    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        distribution = self.actor(state)
        normal = normal_noise(distribution.mean.shape, generator, state.device)
        return Decision(distribution.mode if deterministic else distribution.sample(normal))


class RgmLearner(DemonstrationsLearner):
    """One step of the discriminator, of both levels, and of the actor."""

    method = "rgm"
    config_class = RgmConfig
    model_class = RgmModel

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        model, config = self.model, self.config
        return {"discriminator": (model.discriminator, config.learning_rate),
                "value": (model.value, config.learning_rate),
                "correction": (model.correction, config.correction_learning_rate),
                "actor": (model.actor, config.actor_learning_rate)}

    def learn(self, steps: Steps) -> dict[str, Any]:
        model, config = self.model, self.config
        logits = model.discriminator(torch.cat([steps.state, steps.action], -1)).squeeze(-1)
        safe, unlabelled = halves(logits)
        loss = functional.softplus(-safe).mean() + functional.softplus(unlabelled).mean()  # eq. 16
        self.optimisers["discriminator"].step(loss)
        # The data's distribution is that of the batch, one half demonstrations: w = 2 sigmoid(logit).
        log_demonstrations = functional.logsigmoid(logits.detach()) + math.log(2)

        correction = model.corrected(steps.state, steps.action, steps.reward)
        flow = steps.discount * model.value(steps.next_state).squeeze(-1) - model.value(steps.state).squeeze(-1)
        reward = steps.reward + correction
        upper = gap(reward + flow.detach(), log_demonstrations, config.divergence)
        lower = dual(reward.detach() + flow, model.value(steps.first_state), config.divergence, config.discount)
        ratio = log_ratio((reward + flow).detach(), config.divergence).exp()
        actor_loss = -(ratio * model.actor(steps.state).log_probability(steps.action)).mean()  # eq. 18
        for name, each in (("correction", upper), ("value", lower), ("actor", actor_loss)):
            self.optimisers[name].step(each)
        corrections = halves(correction.detach())
        return {"discriminator_loss": loss.detach(), "gap": upper.detach(), "value_loss": lower.detach(),
                "actor_loss": actor_loss.detach(), "safe_correction": corrections[0].mean(),
                "unlabelled_correction": corrections[1].mean()}
