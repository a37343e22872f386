"""Recorded and imagined steps between latent states, as every method on the world model learns from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safe_policy_core.world_model.model import Batch, WorldModel
from safe_policy_core.world_model.rssm import LatentState


@dataclass(frozen=True)
class RealSteps:
    """N recorded steps at posterior states, detached.

    features, next_features: (N, features). action: (N, action_dim), executed at the state.
    mask: (N,) 1 where the step is whole (not across the end of an episode or of a window), else 0.
    reward, cost: (N,) received on arriving at the next state. next_terminal: (N,) bool. length: as many of them in a
    row are of the same window.
    """

    features: Tensor
    next_features: Tensor
    action: Tensor
    mask: Tensor
    reward: Tensor
    cost: Tensor
    next_terminal: Tensor
    length: int = 1

    def mean(self, values: Tensor) -> Tensor:
        """Mean over whole steps."""
        return (values * self.mask).sum() / self.mask.sum().clamp(min=1)


@dataclass(frozen=True)
class ImaginedSteps:
    """Rollouts, detached. features: (H + 1, N, features). action: (H, N, action_dim).

    reward, cost, continues: (H, N) at the arrival states s^1 .. s^H. weight: (H, N), the
    probability that the rollout was not over before state h.
    """

    features: Tensor
    action: Tensor
    reward: Tensor
    cost: Tensor
    continues: Tensor
    weight: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean over steps that may happen."""
        return (values * self.weight).sum() / self.weight.sum().clamp(min=1e-6)


def real_steps(features: Tensor, batch: Batch) -> tuple[RealSteps, Tensor]:
    """Steps from row t to t + 1 of (B, L) sequences, flattened, and the (B, L - 1) mask of whole ones."""
    has_next = batch["has_next_action"][:, :-1] & ~batch["is_first"][:, 1:]
    return RealSteps(
        features=features[:, :-1].flatten(0, 1), next_features=features[:, 1:].flatten(0, 1),
        action=batch["next_action"][:, :-1].flatten(0, 1), mask=has_next.flatten().float(),
        reward=batch["reward"][:, 1:].flatten(), cost=batch["cost"][:, 1:].flatten(),
        next_terminal=batch["is_terminal"][:, 1:].flatten(), length=has_next.shape[1]), has_next


def imagine(world_model: WorldModel, start: LatentState, is_terminal: Tensor, act: Callable[[Tensor, int], Tensor],
            horizon: int, generator: torch.Generator, context: Callable[[Tensor], Tensor] | None = None
            ) -> tuple[Tensor, ImaginedSteps]:
    """FOSP eq. 6: rollouts of `act(features, step) -> actions` from (N, ...) states, `is_terminal` (N,) or not.

    Returns (H + 1, N, features) with their graph, and everything detached. context: as in `Rssm.imagine`.
    """
    rollout = world_model.rssm.imagine(start, act, horizon, generator, context)
    arrived = rollout.features[1:].detach()
    with torch.no_grad():
        continues = world_model.continuation(arrived)
        alive = 1 - is_terminal.float()
        weight = torch.cat([alive.unsqueeze(0), alive * continues[:-1].cumprod(0)])
        imagined = ImaginedSteps(rollout.features.detach(), rollout.actions.detach(), world_model.reward(arrived),
                                 world_model.cost(arrived), continues, weight)
    return rollout.features, imagined
