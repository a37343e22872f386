"""QPT's networks: the conditional transformer, its slow copy, and double critics of reward and cost."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from torch import Tensor

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import discounted_to_go
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.qpt.config import QptConfig
from safe_policy_core.methods.sequence.model import ROWS_FOR_STATISTICS, SequenceModel
from safe_policy_core.networks.paired import TwinCritics


class QptModel(SequenceModel):
    """Critics take scaled states and actions, and give scaled values: signal 0 is reward, 1 is cost.

    The networks' outputs have the spread of discounted sums in the data as their unit, so that it does not matter for
    learning how large a signal is: costs of PointGoal1 are 0.06 on average, and Adam's steps do not shrink with them.
    """

    config: QptConfig

    def __init__(self, specs: Specs, config: QptConfig) -> None:
        super().__init__(specs, config)
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False).eval()
        self.critics = TwinCritics(self.inputs, self.action_dim, config.critic_units, config.critic_layers, 2,
                                   config.target_rate)

    def measure(self, dataset: DsrlDataset) -> None:
        super().measure(dataset)
        episodes = np.arange(0, len(dataset), max(1, dataset.rows // ROWS_FOR_STATISTICS))
        for number, (values, unit) in enumerate(((dataset.rewards, self.return_unit), (dataset.costs, self.cost_unit))):
            spread = discounted_to_go(values, dataset, self.config.discount, episodes).std()
            self.critics.scale[number] = float(spread) * unit if spread else 1.0
        # `follow` moves weights alone; before the first update the copy is the same in all else too.
        self.target_actor.load_state_dict(self.actor.state_dict())

    def values(self, states: Tensor, actions: Tensor, slow: bool = False) -> tuple[Tensor, Tensor]:
        """Reward value (the smaller estimate) and cost value (by `cost_pessimism`), each (*candidates, N), of
        (N, inputs) states and (*candidates, N, action_dim) actions.

        No sum of costs is below 0. Without that bound the policy went where the critics go below it by their errors,
        and its values there were the next targets (mean cost value of its actions in SafeReach: -1.9 after 600 steps).
        """
        reward, cost = self.critics(states, actions, slow)
        return reward.amin(0), self._combined(cost)

    def fixed_cost_value(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The second of `values` alone, of the slow copies as they are now, quickly for one pair."""
        cost = self.critics.fixed(1)
        return lambda states, actions: self._combined(cost(states, actions))

    def _combined(self, cost: Tensor) -> Tensor:
        chosen = self.config.cost_pessimism
        combined = cost.mean(0) if chosen == "mean" else cost.amax(0) if chosen == "max" else cost.amin(0)
        return combined.clamp(min=0)
