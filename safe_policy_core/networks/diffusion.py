"""Denoising diffusion: forward process, classifier-free guidance, and one sampler that is DDPM or DDIM.

Notation of Ho et al. 2020 (DSPO appendix B): alpha^t = 1 - beta^t, alpha_bar^t their product; steps are numbered
0 to T - 1 here, and "-1" is the clean data (alpha_bar 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(B, ...) noisy values and (B,) steps -> the noise in them."""


class Diffusion(nn.Module):
    """The cosine schedule of Nichol and Dhariwal 2021 over `steps` steps; beta is at most 0.999."""

    alpha_bar: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigurationError(f"diffusion steps: expected at least 1, got {steps}")
        position = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        level = torch.cos((position + 0.008) / 1.008 * math.pi / 2).square()
        beta = (1 - level[1:] / level[:-1]).clamp(max=0.999)
        self.steps = steps
        # Entry 0 is the clean data, so that step t is entry t + 1.
        self.register_buffer("alpha_bar", torch.cat([torch.ones(1), (1 - beta).cumprod(0).float()]), persistent=False)

    def _level(self, step: Tensor, like: Tensor) -> Tensor:
        """alpha_bar of (B,) steps, shaped to multiply `like` (B, ...)."""
        return self.alpha_bar[step + 1].view(-1, *[1] * (like.dim() - 1))

    def noisy(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """x^t = sqrt(alpha_bar) x^0 + sqrt(1 - alpha_bar) noise, for (B, ...) values and (B,) steps."""
        level = self._level(step, clean)
        return level.sqrt() * clean + (1 - level).sqrt() * noise

    def clean(self, value: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """Inverse of `noisy`: x^0 when `noise` is what was added."""
        level = self._level(step, value)
        return (value - (1 - level).sqrt() * noise) / level.sqrt()

    def noise(self, value: Tensor, step: Tensor, clean: Tensor) -> Tensor:
        """What was added when `clean` is x^0."""
        level = self._level(step, value)
        return (value - level.sqrt() * clean) / (1 - level).sqrt()

    def back(self, value: Tensor, step: Tensor, before: Tensor, noise: Tensor, eta: float, fresh: Tensor,
             bound: float | None = None) -> Tensor:
        """From `step` to the earlier step `before` (-1: clean data), all (B,) (Song et al. 2021, eq. 12 and 16).

        noise: the predicted one. eta 0: deterministic (DDIM). eta 1: with `before` = step - 1 this is the DDPM
        step of DSPO appendix B with the posterior's variance. fresh: standard normal. bound: x^0 is known to lie
        in [-bound, bound].
        """
        level, next_level = self._level(step, value), self._level(before, value)
        clean = self.clean(value, step, noise)
        if bound is not None:
            clean = clean.clamp(-bound, bound)
            noise = (value - level.sqrt() * clean) / (1 - level).sqrt()
        deviation = eta * ((1 - next_level) / (1 - level) * (1 - level / next_level)).clamp(min=0).sqrt()
        direction = (1 - next_level - deviation.square()).clamp(min=0).sqrt()
        return next_level.sqrt() * clean + direction * noise + deviation * fresh

    @torch.no_grad()
    def sample(self, denoiser: Denoiser, start: Tensor, generator: torch.Generator, steps: int | None = None,
               eta: float = 1.0, bound: float | None = None) -> Tensor:
        """Denoises `start` (B, ...), standard normal, in `steps` steps spread over the schedule (None: all of them).

        All steps with eta 1 is DDPM; few with eta 0 is DDIM. Noise is drawn from `generator` (on the CPU).
        """
        count = self.steps if steps is None else steps
        if not 1 <= count <= self.steps:
            raise ConfigurationError(f"sampling steps: expected 1 to {self.steps}, got {count}")
        chosen = torch.linspace(-1, self.steps - 1, count + 1).round().long().tolist()
        value = start
        for before, step in zip(chosen[-2::-1], chosen[:0:-1], strict=True):
            now = torch.full((len(value),), step, device=value.device)
            fresh = torch.randn(value.shape, generator=generator).to(value.device) if eta else torch.zeros_like(value)
            value = self.back(value, now, torch.full_like(now, before), denoiser(value, now), eta, fresh, bound)
        return value


def guided(network: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], conditions: Tensor, scale: float) -> Denoiser:
    """Classifier-free guidance: noise without conditions + scale * (noise with them - without).

    scale 0 is the unconditional model, 1 the conditional one, above 1 exaggerates the conditions. Both
    predictions come from one forward pass.
    """
    def denoiser(value: Tensor, step: Tensor) -> Tensor:
        keep = torch.cat([torch.ones(len(value)), torch.zeros(len(value))]).to(value)
        given, without = network(value.repeat(2, 1, 1), step.repeat(2), conditions.repeat(2, 1), keep).chunk(2)
        return without + scale * (given - without)

    return denoiser
