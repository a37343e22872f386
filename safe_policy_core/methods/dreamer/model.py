"""All networks of DreamerV3 in one module: what a checkpoint holds and a policy acts with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dreamer.config import DreamerConfig
from safe_policy_core.methods.dreamer.critic import StateCritic
from safe_policy_core.methods.dreamer.disagreement import Disagreement
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.normalisers import PercentileScale
from safe_policy_core.vision import Surroundings, ToolView
from safe_policy_core.world_model import WorldModel


class DreamerModel(nn.Module):
    """World model, actor, critic, and the range of returns by which the actor's are divided."""

    def __init__(self, specs: Specs, config: DreamerConfig) -> None:
        super().__init__()
        if len(specs.action.shape) != 1 or (specs.action.low, specs.action.high) != (-1.0, 1.0):
            raise ConfigurationError(f"action: shape {specs.action.shape} in [{specs.action.low}, {specs.action.high}] "
                                     "is not supported, expected a vector in [-1, 1]")
        self.config = config
        self.tool_view = ToolView(specs, config.tool_view) if config.tool_view.projection is not None else None
        self.world_model = WorldModel(specs, config.world_model, config.tool_view.size if self.tool_view else 0)
        self.feature_size = self.world_model.feature_size
        self.actor = GaussianActor(self.feature_size, specs.action.shape[0], config.units, config.layers)
        self.reward_critic = self.make_critic()
        self.scale = PercentileScale()
        self.disagreement = Disagreement(self.world_model.rssm, config.ensemble) if config.ensemble else None

    def make_critic(self) -> StateCritic:
        """A critic of this model's features."""
        config = self.config
        return StateCritic(self.feature_size, config.units, config.layers, two_hot=config.two_hot_critics,
                           slow_rate=config.slow_rate, slow_scale=config.slow_scale)

    @property
    def critics(self) -> dict[str, tuple[StateCritic, Callable[[Tensor], Tensor]]]:
        """Every critic of imagined returns, by kind, with the head that says what is received on arriving."""
        return {"reward": (self.reward_critic, self.world_model.reward)}

    def moving_context(self, around: Surroundings | None) -> Callable[[Tensor], Tensor] | None:
        """Makes of each action in turn, from `around` on, the context after it (N, size), without a graph."""
        view, place = self.tool_view, around
        if view is None or place is None:
            return None

        @torch.no_grad()
        def after(action: Tensor) -> Tensor:
            nonlocal place
            assert place is not None
            place = view.after(place, action)
            return view(place)

        return after
