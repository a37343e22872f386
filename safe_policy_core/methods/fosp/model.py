"""All networks of FOSP in one module: what a checkpoint holds and a policy acts with."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.fosp.config import FospConfig
from safe_policy_core.methods.fosp.equations import discounted_bound, expansion_probabilities, expansion_utility
from safe_policy_core.methods.fosp.estimators import Reachability, ReturnEstimator
from safe_policy_core.methods.fosp.reach_avoid import ReachAvoid
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.lagrangian import AugmentedLagrangian
from safe_policy_core.vision import Surroundings, TableMap, ToolView
from safe_policy_core.world_model import WorldModel

POLICY_NAMES = ("offline", "online", "map")
_MAP = 2


@dataclass(frozen=True)
class Choice:
    """Actions (N, action_dim) and, for each, which policy made it, by its place in `POLICY_NAMES` (N,)."""

    action: Tensor
    policy: Tensor


class FospModel(nn.Module):
    """World model, estimators and one or two actors.

    `actor` is the one in training. After `expand` the old one stays beside it, frozen, as `offline_actor`.
    """

    largest_reward: Tensor
    largest_cost: Tensor

    def __init__(self, specs: Specs, config: FospConfig) -> None:
        super().__init__()
        if len(specs.action.shape) != 1 or (specs.action.low, specs.action.high) != (-1.0, 1.0):
            raise ConfigurationError(f"action: shape {specs.action.shape} in [{specs.action.low}, {specs.action.high}] "
                                     "is not supported, expected a vector in [-1, 1]")
        self.config = config
        action_dim = specs.action.shape[0]
        projection = config.tool_view.projection
        self.tool_view = None if projection is None else ToolView(specs, config.tool_view)
        self.table_map = None if projection is None or not config.table_map.cells \
            else TableMap(specs, config.table_map, projection)
        self.world_model = WorldModel(specs, config.world_model, config.tool_view.size if self.tool_view else 0)
        size = self.world_model.feature_size
        self.actor = GaussianActor(size, action_dim, config.units, config.layers)
        self.offline_actor: GaussianActor | None = None
        self.reward = ReturnEstimator("reward", size, action_dim, config)
        self.cost = ReturnEstimator("cost", size, action_dim, config)
        self.reachability = Reachability(size, config)
        self.lagrangian = AugmentedLagrangian(config.initial_multiplier, config.initial_penalty,
                                              config.penalty_growth)
        self.register_buffer("largest_reward", torch.ones(()))
        self.register_buffer("largest_cost", torch.ones(()))

    @property
    def expanded(self) -> bool:
        """Whether a frozen offline actor acts beside the one in training."""
        return self.offline_actor is not None

    def expand(self, fresh: GaussianActor | None = None) -> None:
        """Policy expansion: freezes a deep copy of the actor; the one in training goes on from `fresh` or its weights.

        Two sets of parameters from here on: nothing that trains the one reaches the other.
        """
        self.offline_actor = copy.deepcopy(self.actor).requires_grad_(False)
        if fresh is not None:
            self.actor.load_state_dict(fresh.state_dict())

    def moving_context(self, around: Surroundings) -> Callable[[Tensor], Tensor] | None:
        """Makes of each action in turn, from `around` on, the context after it (N, size), without a graph.

        The penalty of eq. 20 reaches the actor through the latent state alone: through the pictures it would
        cost a third of a training step.
        """
        view, place = self.tool_view, around
        if view is None:
            return None

        @torch.no_grad()
        def after(action: Tensor) -> Tensor:
            nonlocal place
            place = view.after(place, action)
            return view(place)

        return after

    def feasibility(self, features: Tensor) -> Tensor:
        """u of eq. 19, 20 and 23; 1 everywhere without reachability."""
        if not self.config.reachability:
            return torch.ones_like(features[..., 0])
        return self.reachability.feasibility(features)

    def utility(self, features: Tensor, action: Tensor) -> Tensor:
        """Q~ of eq. 22: (N, features), (N, action_dim) -> (N,)."""
        config = self.config
        bounds = [given if given is not None
                  else discounted_bound(float(largest), estimator.discount, config.episode_length)
                  for given, largest, estimator in ((config.largest_return, self.largest_reward, self.reward),
                                                    (config.largest_cost_return, self.largest_cost, self.cost))]
        return expansion_utility(self.reward.critic(features, action), self.cost.critic(features, action),
                                 bounds[0], bounds[1])

    @property
    def actors(self) -> list[GaussianActor]:
        """As in POLICY_NAMES, the offline one first."""
        return [self.actor] if self.offline_actor is None else [self.offline_actor, self.actor]

    def choose(self, features: Tensor, generator: torch.Generator, greedy: bool = False) -> Choice:
        """Actions at (N, features): each policy's draw, or its mode when `greedy`, chosen between by eq. 21."""
        actions = []
        for actor in self.actors:
            distribution = actor(features)
            noise = None if greedy else torch.randn(distribution.mean.shape, generator=generator,
                                                    device=features.device)
            actions.append(distribution.mode if noise is None else distribution.sample(noise))
        if len(actions) == 1:
            return Choice(actions[0], torch.zeros(len(features), dtype=torch.long, device=features.device))
        utility = torch.stack([self.utility(features, action) for action in actions], -1)
        probabilities = expansion_probabilities(utility, self.config.expansion_temperature)
        chosen = probabilities.argmax(-1) if greedy \
            else torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)
        return Choice(torch.stack(actions, 1)[torch.arange(len(features)), chosen], chosen)

    @torch.no_grad()
    def solved_map(self, scene: Tensor) -> ReachAvoid | None:
        """Of an episode whose first picture is `scene` (1, H, W, C); None without a map."""
        if self.table_map is None or self.tool_view is None:
            return None
        contact, arrival = self.table_map(scene)[0].sigmoid().cpu().numpy()
        area = self.config.table_map
        return ReachAvoid(contact, arrival, area.low, area.high, self.tool_view.step_length, self.config.discount,
                          self.config.reach_avoid)

    def redirected(self, choice: Choice, features: Tensor, solved: ReachAvoid, commanded: np.ndarray) -> Choice:
        """`choice` of one row, or the map's where that knows a better step from `commanded` (2,) [m].

        The map's height and rotation are the offline actor's mode, as demonstrated: the map was learned with tools
        held so. Draws, and an online actor that no reward holds upright, tilted the tool by up to 0.3 rad in
        fine-tuning, and the corners of its fingers touched.
        """
        step = solved.step(commanded, choice.action[0, :2].cpu().numpy())
        if step is None:
            return choice
        action = self.actors[0](features).mode.clone()
        action[0, :2] = torch.from_numpy(step).to(action)
        return Choice(action, torch.full_like(choice.policy, _MAP))
