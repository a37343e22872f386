"""Windows of the last K steps with returns-to-go and costs-to-go, for sequence models (CDT, QPT).

A window ends at any step of an episode and is padded on the left, as it is when acting. Relabelled
episodes (`augmentation`) are entries of their own that share the rows of the original: they cost
three numbers each, not a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs


@dataclass(frozen=True)
class Relabelled:
    """Episodes under other labels: `episode` (M,) int64, and what is added to every return- and cost-to-go, (M,)."""

    episode: np.ndarray
    return_shift: np.ndarray
    cost_shift: np.ndarray


class SequenceStore:
    """Samples windows of a DSRL dataset.

    length: K, steps of a window. weights: (E,), how often an episode is drawn relative to the others
    (None: equally often); relabelled episodes are drawn as often as their originals.
    """

    def __init__(self, dataset: DsrlDataset, length: int, weights: np.ndarray | None = None,
                 relabelled: Relabelled | None = None) -> None:
        weights = np.ones(len(dataset)) if weights is None else np.asarray(weights, float)
        if weights.shape != (len(dataset),) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise DatasetError(f"weights: expected {len(dataset)} numbers of at least 0, one of them above")
        self.dataset, self.length = dataset, length
        self._return_to_go = to_go(dataset.rewards, dataset)
        self._cost_to_go = to_go(dataset.costs, dataset)
        self._episode, self._shifts = np.arange(len(dataset)), np.zeros((2, len(dataset)), np.float32)
        if relabelled is not None:
            self._episode = np.concatenate([self._episode, relabelled.episode])
            shifts = np.stack([relabelled.return_shift, relabelled.cost_shift]).astype(np.float32)
            self._shifts = np.concatenate([self._shifts, shifts], 1)
        self._cumulative = np.cumsum(weights[self._episode])

    @property
    def specs(self) -> Specs:
        return self.dataset.specs

    def __len__(self) -> int:
        """Number of episodes, relabelled ones included."""
        return len(self._episode)

    def data_hash(self) -> str:
        return self.dataset.data_hash()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`batch` windows of the store's K steps; `length` is not used.

        observations (B, K, size), actions (B, K, size), rewards, costs, returns_to_go, costs_to_go
        (B, K) float32 (undiscounted, from the step on, its own reward included); time_steps (B, K)
        int64 since the episode's first; mask (B, K) bool, False where padded on the left (zeros there);
        terminal (B,) bool, whether the window's last step ended the episode by termination.
        """
        return self.windows(*self._ends(batch, rng))

    def _ends(self, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows by chance, as `windows` takes them."""
        drawn = np.searchsorted(self._cumulative, rng.random(batch) * self._cumulative[-1], side="right")
        entry = np.minimum(drawn, len(self._episode) - 1)
        episode, data = self._episode[entry], self.dataset
        first = data.starts[episode]
        last = first + rng.integers(0, data.lengths[episode])
        return first, last, self._shifts[:, entry]

    def windows(self, first: np.ndarray, last: np.ndarray, shifts: np.ndarray) -> dict[str, np.ndarray]:
        """The windows that end at the rows `last` of the episodes that begin at `first`, all (B,)."""
        index = last[:, None] + np.arange(1 - self.length, 1)
        steps = index - first[:, None]
        return self._gathered(np.maximum(index, first[:, None]), steps, steps >= 0, shifts)

    def _gathered(self, index: np.ndarray, steps: np.ndarray, mask: np.ndarray, shifts: np.ndarray
                  ) -> dict[str, np.ndarray]:
        """The rows `index` (B, K) as windows. steps: their numbers in time; mask: False where a row is padding."""
        data = self.dataset
        batch: dict[str, np.ndarray] = {
            "observations": data.observations.take(index, 0), "actions": data.actions.take(index, 0),
            "rewards": data.rewards.take(index), "costs": data.costs.take(index),
            "returns_to_go": self._return_to_go.take(index) + shifts[0][:, None],
            "costs_to_go": self._cost_to_go.take(index) + shifts[1][:, None]}
        if not mask.all():
            padded = ~mask
            for values in batch.values():
                values[padded] = 0
        return batch | {"time_steps": np.maximum(steps, 0), "mask": mask, "terminal": data.terminals[index[:, -1]]}


class PromptedStore(SequenceStore):
    """A `SequenceStore` of which `SHARE` of the windows begin with a prompt: `prompt` steps of their own episode.

    They are from anywhere in it. The prompt is numbered from 0 in time and the episode after it, as
    `SequencePolicy.prompt` numbers them. Both together have the K steps; a prompt comes with as many steps of the
    present as are left, or as there are. All but `TOLD` of its windows do not say which return is to go (they have the
    mean of all steps): it tells how fast and by which way, so that beside it a prompt has little to add, and without
    the others nothing is learned from prompts.
    """

    SHARE, TOLD = 0.5, 0.5

    def __init__(self, dataset: DsrlDataset, length: int, prompt: int, weights: np.ndarray | None = None,
                 relabelled: Relabelled | None = None) -> None:
        if not 0 < prompt < length:
            raise DatasetError(f"prompt: expected between 1 and {length - 1} steps, got {prompt}")
        super().__init__(dataset, length, weights, relabelled)
        self.prompt, self._unknown_return = prompt, np.float32(self._return_to_go.mean())

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """As for `SequenceStore`; episodes shorter than a prompt have none."""
        first, last, shifts = self._ends(batch, rng)
        place = rng.random(batch)
        long = self.dataset.lengths[np.searchsorted(self.dataset.starts, first, side="right") - 1]
        prompted = (rng.random(batch) < self.SHARE) & (long >= self.prompt)
        return self.prompted_windows(first, last, shifts, first + (place * (long - self.prompt + 1)).astype(np.int64),
                                     prompted, prompted & (rng.random(batch) >= self.TOLD))

    def prompted_windows(self, first: np.ndarray, last: np.ndarray, shifts: np.ndarray, begin: np.ndarray,
                         prompted: np.ndarray, untold: np.ndarray) -> dict[str, np.ndarray]:
        """As `windows`. begin (B,): the rows at which prompts begin; prompted (B,) bool: which windows have one;
        untold (B,) bool: which do not say what return is to go."""
        back = np.arange(1 - self.length, 1)
        index = last[:, None] + back
        steps = index - first[:, None]
        # Where the prompt's first step would be the window's column 0, or with a shorter past one further right.
        place = self.length + back - 1 - np.maximum(self.length - self.prompt - (last - first + 1), 0)[:, None]
        inside = prompted[:, None] & (place >= 0) & (place < self.prompt)
        index = np.where(inside, begin[:, None] + place, np.maximum(index, first[:, None]))
        steps = np.where(inside, place, steps + self.prompt * prompted[:, None])
        mask = np.where(prompted[:, None], place >= 0, steps >= 0)
        windows = self._gathered(index, np.where(mask, steps, -1), mask, shifts)
        windows["returns_to_go"][mask & untold[:, None]] = self._unknown_return
        return windows


def augmented(dataset: DsrlDataset, share: float, rng: np.random.Generator, max_return: float | None = None
              ) -> Relabelled:
    """QPT Algorithm 2 (CDT's augmentation): infeasible targets, labelled onto the best episode that is safe for them.

    share: relabelled episodes as a share of the dataset's. max_return: r_max, by default the
    highest return in the data, so that no label asks for more than was ever seen.

    Line 6's RF (eq. 39) asks for a cost of exactly kappa, which a kappa drawn from a continuous range
    never meets; here RF(kappa) is the best return of a cost of at most kappa, which is R(tau*) of line 8.
    """
    returns, costs = dataset.returns, dataset.cost_returns
    count = round(share * len(dataset))
    highest = float(returns.max()) if max_return is None else max_return
    kappa = rng.uniform(costs.min(), costs.max(), count)  # line 4
    best = frontier(dataset, kappa)  # line 8, eq. 11
    rho = rng.uniform(returns[best], np.maximum(highest, returns[best]))  # line 6
    return Relabelled(best, rho - returns[best], kappa - costs[best])  # line 10, eq. 12


def frontier(dataset: DsrlDataset, cost: np.ndarray) -> np.ndarray:
    """The episode of the highest return among those of at most `cost` (QPT eq. 11), in the shape of `cost`.

    Raises `DatasetError` when no episode costs as little as that.
    """
    order = np.lexsort((-dataset.returns, dataset.cost_returns))
    returns, costs = dataset.returns[order], dataset.cost_returns[order]
    better = np.maximum.accumulate(returns) == returns
    best = order[np.maximum.accumulate(np.where(better, np.arange(len(order)), 0))]
    place = np.searchsorted(costs, cost, side="right") - 1
    if (place < 0).any():
        raise DatasetError(f"cost: {float(np.min(cost)):g} is less than that of any episode ({costs[0]:g})")
    return best[place]


def returns_within(dataset: DsrlDataset, costs: np.ndarray, quantile: float) -> np.ndarray:
    """The `quantile` of the returns of episodes of at most each of `costs` (M,), and never less for a higher cost.

    costs: ascending, from that of the cheapest episode up.
    """
    found = [np.quantile(dataset.returns[dataset.cost_returns <= cost], quantile) for cost in costs]
    return np.maximum.accumulate(found)


def cost_weights(dataset: DsrlDataset, most: float) -> np.ndarray:
    """(E,) weights that fall linearly with an episode's cost, from 1 to 0 at `most` (CDT in OSRL, from 50 down).

    Dearer episodes are never drawn. Where all are, the weights end at the dearest instead.
    """
    if most <= dataset.cost_returns.min():
        most = float(dataset.cost_returns.max()) + 1
    return np.clip(1 - dataset.cost_returns / most, 0, 1)


def discounted_to_go(values: np.ndarray, dataset: DsrlDataset, discount: float, episodes: np.ndarray) -> np.ndarray:
    """Discounted sums from each row of `episodes` (numbers) to their ends, episode after episode."""
    starts, lengths = dataset.starts[:-1][episodes], dataset.lengths[episodes]
    rows = np.zeros((len(episodes), int(lengths.max())), np.float32)
    inside = np.arange(rows.shape[1]) < lengths[:, None]
    rows[inside] = np.concatenate([values[start:start + length] for start, length in zip(starts, lengths, strict=True)])
    for step in range(rows.shape[1] - 2, -1, -1):
        rows[:, step] += discount * rows[:, step + 1]
    return rows[inside]


def to_go(values: np.ndarray, dataset: DsrlDataset) -> np.ndarray:
    """(N,) sums from each row to the end of its episode, by one running sum in double precision."""
    running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    following = np.repeat(running[dataset.starts[1:]], dataset.lengths)
    following -= running[:-1]
    return following.astype(np.float32)


