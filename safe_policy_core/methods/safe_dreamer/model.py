"""All networks of SafeDreamer, and its multiplier."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dreamer.critic import StateCritic
from safe_policy_core.methods.dreamer.model import DreamerModel
from safe_policy_core.methods.dreamer.planner import Courses
from safe_policy_core.methods.safe_dreamer.config import SafeDreamerConfig
from safe_policy_core.networks.lagrangian import AugmentedLagrangian


class SafeDreamerModel(DreamerModel):
    """Dreamer's model with a critic of costs."""

    config: SafeDreamerConfig

    def __init__(self, specs: Specs, config: SafeDreamerConfig) -> None:
        super().__init__(specs, config)
        self.cost_critic = self.make_critic()
        self.lagrangian = AugmentedLagrangian(config.initial_multiplier, config.initial_penalty,
                                              config.penalty_growth)

    @property
    def critics(self) -> dict[str, tuple[StateCritic, Callable[[Tensor], Tensor]]]:
        return {**super().critics, "cost": (self.cost_critic, self.world_model.cost)}

    def rate(self, courses: Courses) -> tuple[Tensor, Tensor]:
        """Discounted return with the critic's bootstrap, and plain sum of costs, of each course: (N,) both."""
        arrived, weight, discount = courses.features[1:], courses.weight, self.config.discount
        steps = range(len(arrived))
        received, paid = self.world_model.reward(arrived), self.world_model.cost(arrived)
        returns = sum((discount ** step * weight[step] * received[step] for step in steps),
                      discount ** len(arrived) * weight[-1] * self.reward_critic(arrived[-1]))
        return returns, (weight[:-1] * paid).sum(0)
