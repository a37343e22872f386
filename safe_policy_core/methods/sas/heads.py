"""What a trained decision transformer is given to imagine with: heads on its frozen features (SAS Figure 5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from safe_policy_core.networks.mlp import relu_mlp

LOG_DEVIATION = (-5.0, 2.0)
SMALLEST_SCALE = 0.01
"""Of standardised changes: an element that changes by the same in every step must not be all that the energy sees."""
RECEIVED, SMALLEST_RECEIVED = 2, 1e-3
"""Reward and cost, and the smallest unit in which they are learned."""
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Decoded(NamedTuple):
    """mean, log_deviation: of the change of state (..., size). received: (..., 2) reward and cost."""

    mean: Tensor
    log_deviation: Tensor
    received: Tensor


class NextStateVae(nn.Module):
    """p(x | c) of a change of state x: a latent ~ N(0, 1), and x ~ N(mean, deviation^2) given latent and c.

    The decoder says beside it what reward and cost the step brings: a network of their own took longer in every step
    that is imagined.
    """

    def __init__(self, context: int, size: int, latent: int, units: int) -> None:
        super().__init__()
        self.size, self.latent = size, latent
        self.encoder = relu_mlp(context + size, 2 * latent, units, 2)
        self.decoder = relu_mlp(context + latent, 2 * size + RECEIVED, units, 2)

    def decode(self, context: Tensor, latent: Tensor) -> Decoded:
        """What is likely under a latent (..., latent)."""
        parts = self.decoder(torch.cat([context, latent], -1)).split([self.size, self.size, RECEIVED], -1)
        return Decoded(parts[0], parts[1].clamp(*LOG_DEVIATION), parts[2])

    def evidence(self, context: Tensor, change: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """The evidence lower bound of log p(change | context) [nats], (...), a mean over draws of the latent.

        normal: (draws, ..., latent). Beside it what the draws say of reward and cost, (..., 2).
        """
        mean, log_deviation = self.encoder(torch.cat([context, change], -1)).chunk(2, -1)
        log_deviation = log_deviation.clamp(*LOG_DEVIATION)
        divergence = (0.5 * (mean.square() + (2 * log_deviation).exp() - 1) - log_deviation).sum(-1)
        latent = mean + log_deviation.exp() * normal
        decoded = self.decode(context.expand(*latent.shape[:-1], -1), latent)
        likelihood = normal_log_density(change, decoded.mean, decoded.log_deviation).mean(0)
        return likelihood - divergence, decoded.received.mean(0)


class PredictiveHeads(nn.Module):
    """Next state, next return-to-go and cost-to-go, and where the base has none a distribution of actions.

    A head's context is the state token's feature z_t beside s_t and a_t themselves. To-go sums fall by what a step
    brings, so reward and cost are predicted. change_mean, change_scale, received_scale: measured in the data.
    """

    change_mean: Tensor
    change_scale: Tensor
    received_scale: Tensor

    def __init__(self, inputs: int, action_dim: int, features: int, units: int, latent: int, own_actions: bool) -> None:
        super().__init__()
        self.vae = NextStateVae(features + inputs + action_dim, inputs, latent, units)
        self.action = relu_mlp(features, 2 * action_dim, units, 1) if own_actions else None
        self.register_buffer("change_mean", torch.zeros(inputs))
        self.register_buffer("change_scale", torch.ones(inputs))
        self.register_buffer("received_scale", torch.ones(RECEIVED))

    def measure(self, changes: Tensor, received: Tensor) -> None:
        """Takes the scales from (rows, inputs) changes of state and (rows, 2) scaled rewards and costs."""
        self.change_mean.copy_(changes.mean(0))
        self.change_scale.copy_(changes.std(0).clamp(min=SMALLEST_SCALE))
        self.received_scale.copy_(received.std(0).clamp(min=SMALLEST_RECEIVED))

    def predict(self, feature: Tensor, state: Tensor, action: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """A step imagined by a draw of the latent: next state (..., inputs), scaled reward and cost (..., 2).

        The state is the decoder's mean: a sample of p(x | c) would have the decoder's Gaussian noise beside it, in
        every step of a course that is to stay near the data, and the paper does not say which it takes.
        """
        decoded = self.vae.decode(torch.cat([feature, state, action], -1), normal)
        return state + self.change_mean + decoded.mean * self.change_scale, decoded.received * self.received_scale

    def predictor(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`predict` of (N, ...) for many steps: the scales are in the last layer, and the deviations are left out."""
        *hidden, last = [layer for layer in self.vae.decoder if isinstance(layer, nn.Linear)]
        size, scale = self.vae.size, torch.cat([self.change_scale, self.received_scale])
        said = [*range(size), *range(2 * size, 2 * size + RECEIVED)]
        bias = last.bias[said] * scale
        bias[:size] += self.change_mean
        weights = [(layer.weight.T.contiguous(), layer.bias) for layer in hidden]
        final = (last.weight[said] * scale.unsqueeze(1)).T.contiguous()

        def function(feature: Tensor, state: Tensor, action: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
            value = torch.cat([feature, state, action, normal], -1)
            for weight, offset in weights:
                value = torch.addmm(offset, value, weight).relu_()
            change, received = torch.addmm(bias, value, final).split([size, RECEIVED], -1)
            return state + change, received

        return function

    def evidence(self, feature: Tensor, state: Tensor, action: Tensor, following: Tensor, normal: Tensor
                 ) -> tuple[Tensor, Tensor]:
        """Bound of log p(s_{t+1} | s_t, a_t, z_t) [nats] of the change in units of `change_scale`, (...).

        normal: (draws, ..., latent). Beside it reward and cost in units of `received_scale`, (..., 2).
        """
        change = (following - state - self.change_mean) / self.change_scale
        return self.vae.evidence(torch.cat([feature, state, action], -1), change, normal)


def normal_log_density(value: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Natural log of a diagonal Gaussian's density, summed over the last axis."""
    standard = (value - mean) * (-log_deviation).exp()
    return (-0.5 * standard.square() - log_deviation - _HALF_LOG_TWO_PI).sum(-1)
