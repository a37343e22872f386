"""Acting by imagination: of several short detours the one whose imagined course is best.

Not in the paper, which acts with the actor's own draw (eq. 21 chooses between two). An actor that imitates
demonstrators who touched obstacles goes on touching them in scenes with more of them, while the world model beneath it
foresees the contact (seen on SafeReach's `more_obstacles`: `results/README.md`). SafeDreamer (Huang et al. 2023) plans
over action sequences with a world model in the same spirit. Here every candidate is the actor's own course, pushed
aside by a constant: a detour has to last some steps to get round an obstacle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.world_model import LatentState, WorldModel


@dataclass(frozen=True)
class LookAheadConfig:
    """Off with `candidates` 0."""

    candidates: int = 0
    """Courses imagined for each policy at every step: the actor's own, rest, and detours."""
    horizon: int = 4
    """Imagined steps."""
    spread: float = 0.6
    """Standard deviation of a detour's constant push, in units of the action's range."""
    directions: int = 2
    """How many leading numbers of an action are pushed: for an arm over a table x and y."""
    cost_weight: float = 1.0
    """What an imagined unit of cost takes from the imagined return."""

    def __post_init__(self) -> None:
        if self.candidates < 0 or self.candidates == 1:
            raise ConfigurationError(f"look_ahead.candidates: expected 0 or at least 2, got {self.candidates}")
        if self.horizon < 1:
            raise ConfigurationError(f"look_ahead.horizon: expected at least 1, got {self.horizon}")


def pushes(config: LookAheadConfig, action_dim: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(candidates, action_dim): zero for the actor's own course (the first) and for rest (the second), draws else."""
    pushed = torch.zeros(config.candidates, action_dim, device=device)
    draws = torch.randn((config.candidates, config.directions), generator=generator, device=device)
    pushed[2:, :config.directions] = config.spread * draws[2:]
    return pushed


def imagined_scores(world_model: WorldModel, value: Callable[[Tensor], Tensor], actor: GaussianActor,
                    state: LatentState, pushed: Tensor, context: Callable[[Tensor], Tensor] | None,
                    config: LookAheadConfig, discount: float) -> tuple[Tensor, Tensor]:
    """First actions (candidates, action_dim) and scores (candidates,) of the courses from `state` of one row.

    Score: sum_h w_h (gamma^h r_h - cost_weight c_h) + w_H gamma^H V(s_H), where w_h is the probability that the
    episode goes on until step h. Latents are the prior's modes.
    """
    count = len(pushed)
    first, features = None, state.features.expand(count, -1)
    state = LatentState(state.deter.expand(count, -1), state.stochastic.expand(count, -1))
    moving = torch.ones(count, 1, device=pushed.device)
    moving[1] = 0.0  # rest
    score, going_on = torch.zeros(count, device=pushed.device), torch.ones(count, device=pushed.device)
    for step in range(config.horizon):
        action = ((actor(features).mode + pushed) * moving).clamp(-1.0, 1.0)
        first = action if first is None else first
        state = world_model.rssm.imagine_step(state, action, None)
        state = state.with_context(context(action) if context else None)
        features = state.features
        gain = discount ** step * world_model.reward(features) - config.cost_weight * world_model.cost(features)
        score = score + going_on * gain
        going_on = going_on * world_model.continuation(features)
    assert first is not None
    return first, score + going_on * discount ** config.horizon * value(features)
