"""Imagined courses: many at once, a few tokens at a time after keys and values that are kept.

The context grows to the base's K steps. Then it is cut to a prompt that stays and the newest of the rest and computed
anew: a window that slid with every step would make all that is kept inexact (`networks.transformer`), and growing
again is something that the base has learned, since every length up to K occurs in its training.

Unlike a sample of the model, an imagined state has no noise of the decoder (`PredictiveHeads.predict`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from safe_policy_core.methods.sas.model import SasModel
from safe_policy_core.methods.sas.steps import Steps
from safe_policy_core.methods.sequence.model import LARGEST_STATE, ConditionalTransformer, Windows
from safe_policy_core.networks.distributions import SquashedGaussian
from safe_policy_core.networks.mlp import without_modules
from safe_policy_core.networks.transformer import Continuation

KEPT_SHARE = 4
"""One of so many steps beside the prompt stays when the context is cut."""


class Imagined(NamedTuple):
    """steps: without the prompt. raw_actions: before the tanh. features: z_t (N, T, units).

    received: (N, T, 2) scaled reward and cost of each step.
    """

    steps: Steps
    raw_actions: Tensor
    features: Tensor
    received: Tensor


class Noise(NamedTuple):
    """Standard normal draws: action (N, T, action_dim), latent (N, T, latent)."""

    action: Tensor
    latent: Tensor

    @classmethod
    def draw(cls, model: SasModel, courses: int, steps: int, generator: torch.Generator) -> Noise:
        """On the CPU, so that a seed gives the same courses on every device."""
        return cls(*(torch.randn((courses, steps, size), generator=generator).to(model.base.horizon.device)
                     for size in (model.base.action_dim, model.heads.vae.latent)))


def kept_steps(present: int, prompt: int, length: int, begin: int) -> list[int] | None:
    """The steps of a context cut for the step `present`, itself included; None while there is room.

    Steps are numbered with the prompt's first as 0; the context holds the prompt and those from `begin` on.
    """
    if present - begin + 1 + prompt <= length:
        return None
    return [*range(prompt), *range(present - max(1, (length - prompt) // KEPT_SHARE) + 1, present + 1)]


@torch.inference_mode()
def imagine(model: SasModel, state: Tensor, to_go: Tensor, noise: Noise, prompt: Steps | None = None,
            told: bool = True, keep: bool = True) -> Imagined:
    """Courses from states (inputs,) or (N, inputs), with (2,) or (N, 2) scaled to-go sums, after a prompt of one.

    told, keep: `SasConfig.told` and `keep_prompt`.
    """
    base, (courses, count, _) = model.base, noise.action.shape
    before = prompt.expand(courses) if prompt is not None else None
    states, actions, sums = ([*value.unbind(1)] for value in before) if before else ([], [], [])
    first, raw, features, received = len(actions), [], [], []
    kept = first if keep else 0
    unknown = base.unknown_return if prompt is not None and not told else None
    if unknown is not None:
        sums = [_with_return(value, unknown) for value in sums]
        to_go = _with_return(to_go, unknown)
    states.append(state.expand(courses, -1))
    sums.append(to_go.expand(courses, -1))
    embed, predict = _StepTokens(base.actor, first + count), model.heads.predictor()
    head = base.actor.action_head if model.heads.action is None else without_modules(model.heads.action)
    continuation, begin = Continuation(base.actor.transformer, courses, base.actor.tokens * base.config.length), kept
    # Lists in place of one tensor: writing into slices took longer than a block of the transformer.
    for turn, (action_noise, latent) in enumerate(zip(noise.action.unbind(1), noise.latent.unbind(1), strict=True)):
        step = first + turn
        cut = kept_steps(step, kept, base.config.length, begin)
        if cut is not None or not turn:
            chosen = cut or list(range(step + 1))
            begin = chosen[kept]
            continuation.restart()
            tokens = _context_tokens(model, states, actions, sums, chosen)
        else:
            tokens = embed(step, actions[-1], sums[-1], states[-1])
        features.append(continuation.extend(tokens))
        raw.append(SquashedGaussian(head(features[-1])).raw_sample(action_noise))
        actions.append(raw[-1].tanh())
        following, gain = predict(features[-1], states[-1], actions[-1], latent)
        states.append(following.clamp(-LARGEST_STATE, LARGEST_STATE))
        received.append(gain)
        sums.append(sums[-1] - gain)
        sums[-1][:, 1].clamp_(min=0)  # as for the acting policy: no episode has less cost than nothing to go
        if unknown is not None:
            sums[-1][:, 0] = unknown
    steps = Steps(*(torch.stack(rows[first:first + count], 1) for rows in (states, actions, sums)))
    return Imagined(steps, *(torch.stack(rows, 1) for rows in (raw, features, received)))


def _with_return(to_go: Tensor, value: Tensor) -> Tensor:
    """(..., 2) sums to go with another return."""
    return torch.stack([value.expand(to_go.shape[:-1]), to_go[..., 1]], -1)


def _context_tokens(model: SasModel, states: list[Tensor], actions: list[Tensor], sums: list[Tensor], steps: list[int]
                    ) -> Tensor:
    """(N, tokens, units) of whole steps, of which the last has no action yet."""
    state, to_go = (torch.stack([rows[step] for step in steps], 1) for rows in (states, sums))
    unknown = torch.zeros(len(state), model.base.action_dim, device=state.device)
    action = torch.stack([*(actions[step] for step in steps[:-1]), unknown], 1)
    returns, costs = to_go.unbind(-1)
    numbers = torch.tensor([steps], device=state.device)
    # Rewards, costs, mask and terminal of a window are only looked at in training.
    windows = Windows(state, action, returns, costs, returns, costs, numbers, numbers, numbers)
    return model.base.actor.embed(windows).flatten(1, 2)[:, :-1]


class _StepTokens:
    """The tokens from an action on that was unknown when its step was looked at, to the next step's state.

    One product for all of them, with the scales of the to-go sums in its weights: each layer's own call took longer.
    """

    def __init__(self, actor: ConditionalTransformer, steps: int) -> None:
        """steps: of time, as many as will be asked for."""
        layers = [actor.action_token, actor.return_token, *([actor.cost_token] if actor.cost_token else []),
                  actor.state_token]
        self._sums, first = len(layers) - 2, actor.action_token.in_features
        zero, one = actor.to_go(torch.zeros_like(actor.to_go.mean)), actor.to_go(torch.ones_like(actor.to_go.mean))
        self.weight = torch.block_diag(*(layer.weight for layer in layers)).T.contiguous()
        offset = torch.cat([layer.bias for layer in layers])
        for number in range(self._sums):
            row = self.weight[first + number]
            offset = offset + zero[number] * row
            row *= one[number] - zero[number]
        times = actor.time.weight[:steps]  # as many as there are: later ones share the last
        times = torch.cat([times, times[-1:].expand(steps - len(times), -1)])
        self._offsets = torch.cat([times.roll(1, 0), times.repeat(1, len(layers) - 1)], 1) + offset
        self._shape = (-1, len(layers), actor.action_token.out_features)

    def __call__(self, step: int, action: Tensor, to_go: Tensor, state: Tensor) -> Tensor:
        """(N, tokens, units) for the step number `step` and the action before it."""
        return torch.addmm(self._offsets[step], torch.cat([action, to_go[:, :self._sums], state], 1),
                           self.weight).view(self._shape)
