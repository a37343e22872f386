"""Distributions with explicit noise, so that a seed fixes every draw: latents, actions, yes/no heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from torch import Tensor

MINIMUM_DEVIATION, MAXIMUM_DEVIATION = 0.1, 1.0


def unimix_log_probabilities(logits: Tensor, unimix: float) -> Tensor:
    """(..., classes) logits -> log of (1 - unimix) softmax + unimix / classes: no class ever gets probability 0."""
    if unimix == 0:
        return logits.log_softmax(-1)
    return ((1 - unimix) * logits.softmax(-1) + unimix / logits.shape[-1]).log()


def sample_one_hot(log_probabilities: Tensor, exponential: Tensor | None) -> Tensor:
    """One-hot draw with straight-through gradient to the probabilities.

    exponential: noise ~ Exp(1) of the same shape (the argmax of p / e is a draw from p), or None for the mode.
    """
    probabilities = log_probabilities.exp()
    scores = probabilities.detach() if exponential is None else probabilities.detach() / exponential
    one_hot = torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    return one_hot + (probabilities - probabilities.detach())


def exponential_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise for `sample_one_hot` on the generator's device."""
    return torch.empty(shape, device=generator.device).exponential_(generator=generator)


def categorical_kl(left: Tensor, right: Tensor) -> Tensor:
    """KL(left || right) of (..., groups, classes) log probabilities, summed over groups -> (...)."""
    return (left.exp() * (left - right)).sum((-2, -1))


def balanced_kl(posterior: Tensor, prior: Tensor, free_bits: float, dynamics: float, representation: float
                ) -> tuple[Tensor, Tensor]:
    """DreamerV3's two KL terms of (..., groups, classes) log probabilities, each clipped below at `free_bits` nats.

    Returns (loss, KL), both (...): dynamics * max(free, KL(sg(q) || p)) + representation * max(free, KL(q || sg(p))).
    """
    train_prior = categorical_kl(posterior.detach(), prior)
    train_posterior = categorical_kl(posterior, prior.detach())
    loss = dynamics * train_prior.clamp(min=free_bits) + representation * train_posterior.clamp(min=free_bits)
    return loss, train_prior.detach()


def bernoulli_negative_log_likelihood(logit: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, elementwise; targets may be probabilities."""
    return functional.binary_cross_entropy_with_logits(logit, target, reduction="none")


class BoundedGaussian:
    """Gaussian over actions in [-1, 1]: mean = tanh, standard deviation in [0.1, 1] (DreamerV3's continuous actor).

    Not squashed, so that the log-likelihood of a recorded action at exactly +-1 is finite; draws are clipped.
    parameters: (..., 2 * action_dim), the raw mean and deviation.
    """

    def __init__(self, parameters: Tensor) -> None:
        mean, deviation = parameters.chunk(2, -1)
        self.mean = mean.tanh()
        spread = MAXIMUM_DEVIATION - MINIMUM_DEVIATION
        self.deviation = spread * torch.sigmoid(deviation + 2) + MINIMUM_DEVIATION

    @property
    def mode(self) -> Tensor:
        """(..., action_dim)"""
        return self.mean

    def sample(self, normal: Tensor) -> Tensor:
        """A draw made of standard normal noise (..., action_dim), with gradient to the parameters, clipped to [-1, 1].

        The gradient of a clipped element is zero, as it should be: the environment clips too.
        """
        return (self.mean + self.deviation * normal).clamp(-1, 1)

    def log_probability(self, action: Tensor) -> Tensor:
        """Natural log density, summed over the action's elements -> (...)."""
        standard = (action - self.mean) / self.deviation
        return (-0.5 * standard.square() - self.deviation.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def draw_log_probability(self, action: Tensor) -> Tensor:
        """Log-likelihood of draws, summed: the density inside, at +-1 the mass that `sample` clips -> (...).

        Its gradient is the score of the draws. The density's own is not at the bounds, where a policy gradient with
        it would drift (seen: to -1 or 1, whatever the returns).
        """
        density = -0.5 * ((action - self.mean) / self.deviation).square() - self.deviation.log() \
            - 0.5 * math.log(2 * math.pi)
        above = torch.special.log_ndtr((self.mean - 1) / self.deviation)
        below = torch.special.log_ndtr((-1 - self.mean) / self.deviation)
        return torch.where(action >= 1, above, torch.where(action <= -1, below, density)).sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy [nats], summed over the action's elements -> (...)."""
        return (0.5 * math.log(2 * math.pi * math.e) + self.deviation.log()).sum(-1)


class SquashedGaussian:
    """tanh of a Gaussian (SAC, Haarnoja et al. 2018, appendix C). Its draws are inside (-1, 1) by themselves.

    parameters: (..., 2 * action_dim), the mean and the log deviation before the tanh.
    """

    def __init__(self, parameters: Tensor) -> None:
        self.mean, log_deviation = parameters.chunk(2, -1)
        self.log_deviation = log_deviation.clamp(-5, 2)

    @property
    def mode(self) -> Tensor:
        """(..., action_dim): tanh of the mean."""
        return self.mean.tanh()

    def raw_sample(self, normal: Tensor) -> Tensor:
        """A draw before the tanh, from standard normal noise whose shape may have more leading dimensions."""
        return self.mean + self.log_deviation.exp() * normal

    def log_probability(self, raw: Tensor) -> Tensor:
        """Natural log density of the action tanh(raw), summed over its elements -> (...)."""
        standard = (raw - self.mean) * (-self.log_deviation).exp()
        normal = -0.5 * standard.square() - self.log_deviation - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh^2), in the form that does not lose digits far out.
        return (normal - 2 * (math.log(2) - raw - functional.softplus(-2 * raw))).sum(-1)
