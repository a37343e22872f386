"""Recurrent state-space model with categorical latents (DreamerV3, Hafner et al. 2023).

h_t = GRU(h_{t-1}, z_{t-1}, a_{t-1}); prior p(z_t | h_t); posterior q(z_t | h_t, x_t).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from safe_policy_core.networks.distributions import exponential_noise, sample_one_hot, unimix_log_probabilities
from safe_policy_core.networks.gru import NormGruCell
from safe_policy_core.networks.linear import Linear, at_least_float32
from safe_policy_core.networks.mlp import NORM_EPSILON, Mlp, initialise
from safe_policy_core.world_model.config import WorldModelConfig


@dataclass(frozen=True)
class LatentState:
    """deter: (..., deter). stochastic: (..., latents * classes), flattened one-hot draws.

    context: (..., context) what else is known of the surroundings (`vision.ToolView`), or None.
    """

    deter: Tensor
    stochastic: Tensor
    context: Tensor | None = None

    @property
    def latent(self) -> Tensor:
        """(..., deter + latents * classes): what observations are decoded from."""
        return torch.cat([self.deter, self.stochastic], -1)

    @property
    def features(self) -> Tensor:
        """(..., deter + latents * classes + context): what every head and policy sees."""
        return self.latent if self.context is None else torch.cat([self.latent, self.context], -1)

    def detach(self) -> LatentState:
        return LatentState(self.deter.detach(), self.stochastic.detach(),
                           None if self.context is None else self.context.detach())

    def with_context(self, context: Tensor | None) -> LatentState:
        return LatentState(self.deter, self.stochastic, context)

    def select(self, index: Tensor) -> LatentState:
        """Rows `index` of the states flattened to (N, ...)."""
        context = None if self.context is None else self.context.flatten(0, -2)[index]
        return LatentState(self.deter.flatten(0, -2)[index], self.stochastic.flatten(0, -2)[index], context)


@dataclass(frozen=True)
class Rollout:
    """Imagined states s^0 .. s^H and the actions between them.

    features: (H + 1, N, features). actions: (H, N, action_dim), the one taken at features[h].
    """

    features: Tensor
    actions: Tensor


class Rssm(nn.Module):
    """The dynamics. `embedding_size`: width of an embedded observation."""

    def __init__(self, config: WorldModelConfig, embedding_size: int, action_dim: int) -> None:
        super().__init__()
        self.config = config
        self.stochastic_size = config.latents * config.classes
        self.feature_size = config.deter + self.stochastic_size
        self.initial_deter = nn.Parameter(torch.zeros(config.deter))
        # A linear map of joined inputs is a sum of maps; those of whole sequences run outside the time loop.
        self.from_stochastic = Linear(self.stochastic_size, config.units, bias=False)
        self.from_action = Linear(action_dim, config.units, bias=False)
        self.input_norm = nn.Sequential(nn.LayerNorm(config.units, NORM_EPSILON), nn.SiLU())
        self.cell = NormGruCell(config.units, config.deter)
        self.prior = Mlp(config.deter, self.stochastic_size, config.units, 1)
        self.posterior_deter = Linear(config.deter, config.units, bias=False)
        self.posterior_embedding = Linear(embedding_size, config.units, bias=False)
        self.posterior_norm = nn.Sequential(nn.LayerNorm(config.units, NORM_EPSILON), nn.SiLU())
        self.posterior_output = Linear(config.units, self.stochastic_size)
        for layer in (self.from_stochastic, self.from_action, self.posterior_deter, self.posterior_embedding,
                      self.posterior_output):
            initialise(layer)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """(..., latents * classes) -> (..., latents, classes) log probabilities with unimix."""
        shaped = at_least_float32(logits).unflatten(-1, (self.config.latents, self.config.classes))
        return unimix_log_probabilities(shaped, self.config.unimix)

    def noise(self, leading: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """(*leading, latents, classes) noise for drawing latents."""
        return exponential_noise((*leading, self.config.latents, self.config.classes), generator)

    def initial(self, count: int) -> LatentState:
        """(count, ...) states before the first observation: a learned h_0 and the mode of its prior."""
        deter = self.initial_deter.tanh()
        stochastic = sample_one_hot(self.log_probabilities(self.prior(deter)), None).flatten(-2)
        return LatentState(deter.expand(count, -1), stochastic.expand(count, -1))

    def next_deter(self, state: LatentState, action_part: Tensor) -> Tensor:
        """h_t from the last state and `from_action(a_{t-1})`."""
        return self.cell(self.input_norm(self.from_stochastic(state.stochastic) + action_part), state.deter)

    def posterior(self, deter: Tensor, embedding_part: Tensor) -> Tensor:
        """log q(z_t | h_t, x_t) from h_t and `posterior_embedding(embedding)`: (..., latents, classes)."""
        return self.log_probabilities(self.posterior_output(
            self.posterior_norm(self.posterior_deter(deter) + embedding_part)))

    def observe_step(self, state: LatentState, action: Tensor, embedding: Tensor, noise: Tensor | None
                     ) -> LatentState:
        """The posterior state after `action` led from `state` to the observation; its mode when `noise` is None."""
        deter = self.next_deter(state, self.from_action(action))
        log_posterior = self.posterior(deter, self.posterior_embedding(embedding))
        return LatentState(deter, sample_one_hot(log_posterior, noise).flatten(-2))

    def observe(self, embedding: Tensor, action: Tensor, is_first: Tensor, noise: Tensor
                ) -> tuple[LatentState, Tensor, Tensor]:
        """Filters a sequence: (B, L, embedding), (B, L, action_dim) leading actions, (B, L) bool.

        Returns states (B, L, ...), and log posteriors and log priors (B, L, latents, classes).
        Where is_first is true the state starts anew and the action is ignored.
        """
        batch, length = is_first.shape
        begin = self.initial(batch)
        first = is_first.unsqueeze(-1)
        action_parts = self.from_action(action.masked_fill(first, 0.0)).unbind(1)
        embedding_parts = self.posterior_embedding(embedding).unbind(1)
        noises, resets = noise.unbind(1), first.unbind(1)
        any_reset = is_first.any(0).tolist()
        state, deters, stochastics, log_posteriors = begin, [], [], []
        for index in range(length):
            if index and any_reset[index]:
                state = LatentState(torch.where(resets[index], begin.deter, state.deter),
                                    torch.where(resets[index], begin.stochastic, state.stochastic))
            deter = self.next_deter(state, action_parts[index])
            log_posterior = self.posterior(deter, embedding_parts[index])
            state = LatentState(deter, sample_one_hot(log_posterior, noises[index]).flatten(-2))
            deters.append(deter)
            stochastics.append(state.stochastic)
            log_posteriors.append(log_posterior)
        deter = torch.stack(deters, 1)
        return (LatentState(deter, torch.stack(stochastics, 1)), torch.stack(log_posteriors, 1),
                self.log_probabilities(self.prior(deter)))

    def imagine_step(self, state: LatentState, action: Tensor, noise: Tensor | None) -> LatentState:
        """A prior state after `action`; its mode when `noise` is None. Differentiable in the action."""
        deter = self.next_deter(state, self.from_action(action))
        return LatentState(deter, sample_one_hot(self.log_probabilities(self.prior(deter)), noise).flatten(-2))

    def imagine(self, start: LatentState, act: Callable[[Tensor, int], Tensor], horizon: int,
                generator: torch.Generator, context: Callable[[Tensor], Tensor] | None = None) -> Rollout:
        """Rolls out `act(features, step) -> actions` from (N, ...) states for `horizon` steps (FOSP eq. 6).

        context: gives the context after each action, where the states have one.
        """
        noises = self.noise((horizon, len(start.deter)), generator)
        state, features, actions = start, [start.features], []
        for step in range(horizon):
            action = act(features[-1], step)
            state = self.imagine_step(state, action, noises[step]).with_context(context(action) if context else None)
            actions.append(action)
            features.append(state.features)
        return Rollout(torch.stack(features), torch.stack(actions))
