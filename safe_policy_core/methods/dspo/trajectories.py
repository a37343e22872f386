"""D^S and D^U in memory, as flat features and actions, and the windows of them that the stages train on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dspo.features import FeatureMap

Part = EpisodeStore | DsrlDataset
_FIT = 20_000


@dataclass(frozen=True, eq=False)
class Trajectories:
    """N steps of E trajectories. There is no cost in it.

    states: (N, size) float32, `FeatureMap`'s. actions: (N, action_dim) float32. starts: (E + 1,) first rows, then N.
    returns: (E,) undiscounted sums of rewards. safe: (E,) bool, True for D^S and False for D^U (unknown).
    hash: of the content, `data_hash` of a training run.
    """

    states: np.ndarray
    actions: np.ndarray
    starts: np.ndarray
    returns: np.ndarray
    safe: np.ndarray
    specs: Specs
    hash: str

    def __len__(self) -> int:
        """Number of trajectories."""
        return len(self.returns)

    @property
    def lengths(self) -> np.ndarray:
        """(E,) steps of each trajectory."""
        return np.diff(self.starts)

    def scaled_return(self, value: np.ndarray) -> np.ndarray:
        """Returns as fractions of the range in the data."""
        low, high = self.returns.min(), self.returns.max()
        return ((value - low) / max(high - low, 1e-6)).astype(np.float32)

    def folds(self, count: int) -> np.ndarray:
        """(E,) numbers below `count`, dealt out in turn to D^S and to D^U, whose order is random."""
        fold = np.empty(len(self), np.int64)
        for part in (self.safe, ~self.safe):
            fold[part] = np.arange(part.sum()) % count
        return fold

    def windows(self, episode: np.ndarray, first: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """`length` steps from step `first` of each episode, both (B,): (B, length) mask and (B, length, ...) others.

        Behind an episode's end the last state is repeated, the action is zero and the mask False.
        """
        offset = first[:, None] + np.arange(length)
        mask = offset < self.lengths[episode][:, None]
        row = self.starts[episode][:, None] + np.minimum(offset, self.lengths[episode][:, None] - 1)
        return {"states": self.states[row], "actions": self.actions[row] * mask[..., None], "mask": mask}


def fit_features(features: FeatureMap, safe: Part, unlabelled: Part, seed: int) -> None:
    """Ranges and components from observations of both parts."""
    rng = np.random.default_rng((seed, 7))
    parts = [_observations(part) for part in (safe, unlabelled)]
    chosen = [np.sort(rng.permutation(len(next(iter(part.values()))))[:_FIT]) for part in parts]
    features.fit({name: np.concatenate([part[name][index] for part, index in zip(parts, chosen, strict=True)])
                  for name in parts[0]}, rng)


def gather(part: Part, features: FeatureMap, safe: bool) -> Trajectories:
    """One part of a split, D^S (`safe`) or D^U, as trajectories."""
    states = features.array(_observations(part))
    if isinstance(part, DsrlDataset):
        actions, lengths, returns = part.actions, part.lengths, part.returns
    else:
        episodes = [part.rows_of(index) for index in range(len(part))]
        # The last observation of an episode has no action; it is left out.
        has_next = np.concatenate([rows["has_next_action"] for rows in episodes])
        states, actions = states[has_next], np.concatenate([rows["next_action"] for rows in episodes])[has_next]
        lengths = np.array([len(rows["has_next_action"]) - 1 for rows in episodes])
        returns = np.array([summary.total_reward for summary in part.summaries])
    return Trajectories(states, actions, np.concatenate([[0], np.cumsum(lengths)]), returns,
                        np.full(len(part), safe), part.specs, part.data_hash())


def joined(safe: Trajectories, unlabelled: Trajectories) -> Trajectories:
    """D^S, then D^U. Raises `DatasetError` when their specs differ."""
    if difference := safe.specs.difference(unlabelled.specs):
        raise DatasetError(f"unlabelled data: other specs than the safe demonstrations: {difference}")
    both = (safe, unlabelled)
    return Trajectories(np.concatenate([part.states for part in both]), np.concatenate([part.actions for part in both]),
                        np.concatenate([safe.starts, safe.starts[-1] + unlabelled.starts[1:]]),
                        np.concatenate([part.returns for part in both]), np.concatenate([part.safe for part in both]),
                        safe.specs, hashlib.sha256(f"{safe.hash} {unlabelled.hash}".encode()).hexdigest())


def _observations(part: Part) -> dict[str, np.ndarray]:
    if isinstance(part, DsrlDataset):
        return {next(iter(part.specs.observation)): part.observations}
    episodes = [part.rows_of(index) for index in range(len(part))]
    return {name: np.concatenate([rows[name] for rows in episodes]) for name in part.specs.observation}


def ranks(signals: np.ndarray) -> np.ndarray:
    """(E,) float32 in [0, 1]: the share of the others that are below.

    As a condition it is spread evenly, where z itself may be all but the same everywhere.
    """
    below = np.searchsorted(np.sort(signals), signals)
    return (below / max(len(signals) - 1, 1)).astype(np.float32)


def recalled(trajectories: Trajectories, signals: np.ndarray, quantile: float) -> np.ndarray:
    """(E,) bool: the unlabelled whose signal is at least this quantile of D^S's.

    signals: (E,) z of every trajectory. Also those that earned less than any demonstration; `CloningConfig.told_return`
    tells the clone which they are.
    """
    return ~trajectories.safe & (signals >= np.quantile(signals[trajectories.safe], quantile))


class DiscriminatorSource:
    """Balanced batches of pieces of trajectories: the first half of the rows from D^S, the second from D^U.

    rivals: those of D^U are drawn as rivals of a demonstration: one of D^S at random, then one of D^U at random that
    earned at least as much as it. Demonstrations without a rival are passed over; with none at all, all of D^U are
    drawn.
    """

    def __init__(self, trajectories: Trajectories, folds: int = 1, rivals: bool = False) -> None:
        self.trajectories, self.specs = trajectories, trajectories.specs
        self._folds = trajectories.folds(folds)
        returns, unlabelled = trajectories.returns, np.flatnonzero(~trajectories.safe)
        self._safe = np.flatnonzero(trajectories.safe)
        self._unlabelled = unlabelled[np.argsort(returns[unlabelled], kind="stable")] if rivals else unlabelled
        # How many of D^U, in the order above, each demonstration is no rival of.
        poorer = np.searchsorted(returns[self._unlabelled], returns[self._safe]) if rivals else np.zeros(1, np.int64)
        self._poorer = poorer[poorer < len(unlabelled)] if (poorer < len(unlabelled)).any() else np.zeros(1, np.int64)

    def __len__(self) -> int:
        return len(self.trajectories)

    def data_hash(self) -> str:
        return self.trajectories.hash

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """states, actions, mask (`Trajectories.windows`), and of whole trajectories safe, returns, fold, all (B,)."""
        data = self.trajectories
        rival = rng.integers(rng.choice(self._poorer, batch - batch // 2), len(self._unlabelled))
        episode = np.concatenate([rng.choice(self._safe, batch // 2), self._unlabelled[rival]])
        first = rng.integers(0, np.maximum(data.lengths[episode] - length, 0) + 1)
        longest = int(np.minimum(data.lengths[episode], length).max())  # no work for steps that no episode has
        return data.windows(episode, first, longest) | {
            "safe": data.safe[episode], "returns": data.returns[episode], "fold": self._folds[episode]}


class DiffusionSource:
    """Pieces of all trajectories, of longer ones more often, with scaled return and the rank of the safety signal.

    signals: (E,) z of every trajectory, in [0, 1].
    """

    def __init__(self, trajectories: Trajectories, signals: np.ndarray) -> None:
        self.trajectories, self.specs = trajectories, trajectories.specs
        self._conditions = np.stack([trajectories.scaled_return(trajectories.returns), ranks(signals)], 1)

    def __len__(self) -> int:
        return len(self.trajectories)

    def data_hash(self) -> str:
        return hashlib.sha256(self.trajectories.hash.encode() + self._conditions.tobytes()).hexdigest()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """states, actions, mask (`Trajectories.windows`), conditions (B, 2)."""
        data = self.trajectories
        row = rng.integers(0, len(data.states), batch)
        episode = np.searchsorted(data.starts, row, side="right") - 1
        first = rng.integers(0, np.maximum(data.lengths[episode] - length, 0) + 1)
        return data.windows(episode, first, length) | {"conditions": self._conditions[episode]}


@dataclass(frozen=True)
class Generated:
    """D^G: states (M, H, size), actions (M, H, action_dim), mask (M, H) bool, False behind a trajectory's end.

    conditions: (M, 2), what each was asked to be.
    """

    states: np.ndarray
    actions: np.ndarray
    mask: np.ndarray
    conditions: np.ndarray


class CloningSource:
    """Steps of recorded trajectories and of D^G together, each with the same probability.

    recorded: (E,) bool, which trajectories; in the paper D^S alone. generated: D^G.
    """

    def __init__(self, trajectories: Trajectories, recorded: np.ndarray, generated: Generated | None = None) -> None:
        self.specs, self._hash = trajectories.specs, trajectories.hash
        rows = np.repeat(recorded, trajectories.lengths)
        self._states, self._actions = trajectories.states[rows], trajectories.actions[rows]
        self._returns = np.repeat(trajectories.scaled_return(trajectories.returns), trajectories.lengths)[rows]
        if generated is not None:
            self._states = np.concatenate([self._states, generated.states[generated.mask]])
            self._actions = np.concatenate([self._actions, generated.actions[generated.mask]])
            asked = np.repeat(generated.conditions[:, 0], generated.mask.sum(1))
            self._returns = np.concatenate([self._returns, asked.astype(np.float32)])

    def __len__(self) -> int:
        return len(self._states)

    def data_hash(self) -> str:
        parts = (self._states, self._actions, self._returns)
        return hashlib.sha256(self._hash.encode() + b"".join(part.tobytes() for part in parts)).hexdigest()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """states (B, size), actions (B, action_dim), returns (B,), of the whole trajectory as a fraction of the range.

        `length` is not used, a step stands alone.
        """
        index = rng.integers(0, len(self._states), batch)
        return {"states": self._states[index], "actions": self._actions[index], "returns": self._returns[index]}
