"""Planning by imagination: the cross-entropy method under a constraint (SafeDreamer's CCEM).

Courses are drawn around a mean that moves towards the best of them, iteration by iteration. The best are those of the
largest return among the safe; while too few are safe, those of the smallest cost. Two deviations from SafeDreamer:
- Cost is compared with a limit for the imagined steps, not extrapolated to a whole episode.
- The best course of the last iteration acts, not the mean of the best: between two ways round an obstacle lies the
  obstacle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.dreamer.model import DreamerModel
from safe_policy_core.vision import Surroundings
from safe_policy_core.world_model import LatentState


@dataclass(frozen=True)
class PlannerConfig:
    """Off with `candidates` 0. SafeDreamer has 500 candidates, 50 best, 6 iterations and 15 steps on a GPU."""

    candidates: int = 0
    """Courses drawn in an iteration."""
    from_actor: int = 6
    """Courses of the actor's own draws beside them."""
    best: int = 8
    """Courses that the next iteration's mean and deviation are taken from."""
    iterations: int = 3
    horizon: int = 5
    """Imagined steps."""
    deviation: float = 0.8
    """Standard deviation of the first draws, in units of the action's range."""
    cost_limit: float = 0.1
    """Imagined cost of a whole course up to which it is safe. The cost head never says exactly 0."""

    def __post_init__(self) -> None:
        if self.candidates < 0 or (self.candidates and not 1 <= self.best <= self.candidates):
            raise ConfigurationError(f"planner.candidates, best: expected 0, or best from 1 to candidates, got "
                                     f"{self.candidates} and {self.best}")
        if self.horizon < 1 or self.iterations < 1 or self.from_actor < 0:
            raise ConfigurationError("planner.horizon, iterations, from_actor: expected at least 1, 1 and 0, got "
                                     f"{self.horizon}, {self.iterations} and {self.from_actor}")


@dataclass(frozen=True)
class Courses:
    """Imagined from one state. features: (H + 1, N, features). actions: (H, N, action_dim).

    weight: (H + 1, N), the probability that the episode goes on after state h.
    """

    features: Tensor
    actions: Tensor
    weight: Tensor


def safest_or_best(returns: Tensor, costs: Tensor, limit: float, count: int) -> Tensor:
    """Indices of `count` of (N,) courses, the best first: by return among the safe, or by cost if they are too few."""
    safe = costs <= limit
    if int(safe.sum()) < count:
        return costs.topk(count, largest=False).indices
    return returns.masked_fill(~safe, -torch.inf).topk(count).indices


def plan(rate: Callable[[Tensor], tuple[Tensor, Tensor]], proposals: Tensor, mean: Tensor, config: PlannerConfig,
         generator: torch.Generator) -> Tensor:
    """The best course (H, action_dim) found.

    rate: returns and costs (N,) of courses (H, N, action_dim). proposals: courses that are always among the
    candidates (H, any number, action_dim). mean: around which to begin (H, action_dim).
    """
    deviation = torch.full_like(mean, config.deviation)
    best = mean
    for _ in range(config.iterations):
        noise = torch.randn((len(mean), config.candidates, mean.shape[-1]), generator=generator, device=mean.device)
        courses = torch.cat([proposals, (mean.unsqueeze(1) + deviation.unsqueeze(1) * noise).clamp(-1, 1)], 1)
        chosen = courses[:, safest_or_best(*rate(courses), config.cost_limit, config.best)]
        best, mean, deviation = chosen[:, 0], chosen.mean(1), chosen.std(1, correction=0)
    return best


def imagine_courses(model: DreamerModel, state: LatentState, around: Surroundings | None,
                    act: Callable[[Tensor, int], Tensor], count: int, horizon: int) -> Courses:
    """`count` courses of `act(features, step)` from a `state` of one row. Latents are the prior's modes."""
    context = model.moving_context(None if around is None else around.repeated(count))
    features, actions = [state.features.expand(count, -1)], []
    state = LatentState(state.deter.expand(count, -1), state.stochastic.expand(count, -1))
    weight = [torch.ones(count, device=state.deter.device)]
    for step in range(horizon):
        actions.append(act(features[-1], step))
        state = model.world_model.rssm.imagine_step(state, actions[-1], None)
        state = state.with_context(context(actions[-1]) if context else None)
        features.append(state.features)
        weight.append(weight[-1] * model.world_model.continuation(state.features))
    return Courses(torch.stack(features), torch.stack(actions), torch.stack(weight))


class Planner:
    """Plans for one policy; the rest of the last plan is where the next one begins."""

    def __init__(self, model: DreamerModel, config: PlannerConfig) -> None:
        self._model, self._config = model, config
        self.reset()

    def reset(self) -> None:
        """Forgets the episode's last plan."""
        self._last: Tensor | None = None

    def action(self, state: LatentState, around: Surroundings | None,
               rate: Callable[[Courses], tuple[Tensor, Tensor]], generator: torch.Generator) -> Tensor:
        """The first action (1, action_dim) of the best course. rate: returns and costs (N,) of courses."""
        model, config = self._model, self._config
        device, action_dim = state.deter.device, model.actor.action_dim
        proposals = torch.zeros(config.horizon, 0, action_dim, device=device)
        if config.from_actor:
            noise = torch.randn((config.horizon, config.from_actor, action_dim), generator=generator, device=device)
            proposals = imagine_courses(model, state, around,
                                        lambda features, step: model.actor(features).sample(noise[step]),
                                        config.from_actor, config.horizon).actions
        mean = torch.zeros(config.horizon, action_dim, device=device) if self._last is None else self._last
        best = plan(lambda courses: rate(imagine_courses(model, state, around, lambda _, step: courses[step],
                                                         courses.shape[1], config.horizon)),
                    proposals, mean, config, generator)
        self._last = torch.cat([best[1:], best[-1:]])
        return best[:1]
