"""Single steps of a DSRL dataset in uniform batches, for value-based methods and behaviour cloning."""

from __future__ import annotations

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs


class TransitionStore:
    """Samples steps of a DSRL dataset, each with the same probability.

    episodes: (E,) bool, those to sample from (None: all). n_step: over how many steps rewards and costs are
    summed, with `discount`. Nothing is copied: a batch is gathered from the dataset's arrays.
    """

    def __init__(self, dataset: DsrlDataset, episodes: np.ndarray | None = None, n_step: int = 1,
                 discount: float = 1.0) -> None:
        self.dataset, self._n_step, self._discount = dataset, n_step, np.float32(discount)
        self._kept = np.arange(len(dataset)) if episodes is None else np.flatnonzero(episodes)
        if not len(self._kept):
            raise DatasetError(f"{dataset.name}: none of {len(dataset)} episodes passes the selection; their costs are "
                               f"{dataset.cost_returns.min():g} to {dataset.cost_returns.max():g}")
        # Row i of the selection is row i - before[e] + starts[e] of the dataset, e being its episode.
        self._after = np.cumsum(dataset.lengths[self._kept])
        self._offset = dataset.starts[self._kept] - (self._after - dataset.lengths[self._kept])

    @property
    def specs(self) -> Specs:
        return self.dataset.specs

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._kept)

    def data_hash(self) -> str:
        return self.dataset.data_hash()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`batch` steps; `length` is not used: a step stands alone.

        observation, next_observation (B, size), action (B, size), reward, cost (B,) float32, terminal (B,)
        bool (ended by termination: nothing follows), first_observation (B, size), the first of the step's
        episode, and discount (B,): what a bootstrapped value is multiplied by, discount^n or 0 after a
        termination. With n_step > 1 reward and cost are discounted sums of up to n steps, which
        stop at the episode's end, and next_observation and terminal are those of the last of them.
        """
        row = rng.integers(0, self._after[-1], batch)
        kept = np.searchsorted(self._after, row, side="right")
        row += self._offset[kept]
        data, episode = self.dataset, self._kept[kept]
        last = np.minimum(row + self._n_step, data.starts[episode + 1]) - 1
        reward, cost, factor = np.zeros(batch, np.float32), np.zeros(batch, np.float32), np.ones(batch, np.float32)
        for step in range(self._n_step):
            index = np.minimum(row + step, last)
            inside = row + step <= last
            reward += factor * inside * data.rewards[index]
            cost += factor * inside * data.costs[index]
            factor = np.where(inside, factor * self._discount, factor)
        terminal = data.terminals[last]
        return {"observation": data.observations[row], "action": data.actions[row], "reward": reward, "cost": cost,
                "next_observation": data.next_observations(last), "terminal": terminal,
                "discount": np.where(terminal, np.float32(0), factor),
                "first_observation": data.observations[data.starts[episode]]}
