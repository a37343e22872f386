"""Data for learning without cost labels: a few safe demonstrations, unlabelled data, and the costs kept apart.

    split_safe(source, out)     # source: episode files or one DSRL file
    out/safe, out/unlabelled    # folders of episode files, or safe.hdf5 and unlabelled.hdf5
    out/scoring.json            # true costs; for scoring alone, no training reads it

In the two parts every cost is zero, the order is random, file names are numbers, and of the metadata only what
tells nothing of safety is left: a method that sees them cannot know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset, read_dsrl, write_dsrl
from safe_policy_core.data.episodes import Episode, EpisodeStore, write_episode
from safe_policy_core.data.sources import SAFE, UNLABELLED, open_data
from safe_policy_core.errors import ConfigurationError, DatasetError

SCORING = "scoring.json"
EVEN_PARTS = 10
KEPT_METADATA = ("specs", "task", "limits", "calibration")
"""Of an episode's metadata. What came of it is left out, and what tells when it was recorded: seeds, scenes and
versions come in blocks, as a collection goes through one behaviour after another."""


@dataclass(frozen=True)
class Split:
    """A split in memory, without costs: D^S and D^U."""

    safe: EpisodeStore | DsrlDataset
    unlabelled: EpisodeStore | DsrlDataset


def choose_demonstrations(returns: np.ndarray, safe: np.ndarray, count: int, share: float, rng: np.random.Generator
                          ) -> np.ndarray:
    """Indices of `count` safe episodes, drawn from the `share` of the safe ones with the highest returns.

    Demonstrations are usually good as well as safe (DSPO section 3.1). Raises `DatasetError` when too few are safe.
    """
    candidates = np.flatnonzero(safe)
    if len(candidates) <= count:
        raise DatasetError(f"demonstrations: {count} were asked for, but only {len(candidates)} of {len(safe)} "
                           "episodes are safe; some of those must stay unlabelled")
    best = candidates[np.argsort(-returns[candidates], kind="stable")]
    return rng.permutation(best[:max(count, round(share * len(best)))])[:count]


def even(returns: np.ndarray, safe: np.ndarray) -> np.ndarray:
    """Places, ascending, of the first of each kind in each tenth of the returns, as many of either: then the return
    tells next to nothing of safety. Raises `DatasetError` where no tenth has both."""
    edges = np.quantile(returns, np.linspace(0, 1, EVEN_PARTS + 1)[1:-1])
    part, kept = np.searchsorted(edges, returns, side="right"), []
    for number in range(EVEN_PARTS):
        kinds = [np.flatnonzero((part == number) & (safe == kind)) for kind in (True, False)]
        kept += [places[:min(map(len, kinds))] for places in kinds]
    found = np.sort(np.concatenate(kept))
    if not len(found):
        raise DatasetError("even_returns: no tenth of the returns has safe and unsafe episodes")
    return found


def split_safe(sources: tuple[Path, ...], out: Path, *, demonstrations: int = 12, cost_limit: float = 0.0,
               share: float = 0.5, even_returns: bool = False, seed: int = 0) -> dict[str, Any]:
    """Writes a split and returns counts. An episode is safe when its total cost is at most `cost_limit`.

    even_returns: as many safe as unsafe ones stay unlabelled in each tenth of the returns (`even`).

    Raises `DatasetError` for unfit data and `ConfigurationError` when `out` is there already.
    """
    if out.exists():
        raise ConfigurationError(f"out: {out} exists; name another folder")
    data, rng = open_data(sources), np.random.default_rng(seed)
    if isinstance(data, DsrlDataset):
        returns, costs = data.returns, data.cost_returns
    else:
        returns = np.array([summary.total_reward for summary in data.summaries])
        costs = np.array([summary.total_cost for summary in data.summaries])
    chosen = choose_demonstrations(returns, costs <= cost_limit, demonstrations, share, rng)
    others = rng.permutation(np.setdiff1d(np.arange(len(returns)), chosen))
    if even_returns:
        others = others[even(returns[others], costs[others] <= cost_limit)]
    truth: dict[str, Any] = {"cost_limit": cost_limit, "seed": seed, "sources": [str(path) for path in sources]}
    for part, indices in ((SAFE, chosen), (UNLABELLED, others)):
        if isinstance(data, DsrlDataset):
            write_dsrl(out / f"{part}.hdf5", _without_costs(data, indices))
        else:
            for number, index in enumerate(indices):
                write_episode(out / part / f"{number:05d}.h5", _blinded(data, int(index)))
        truth[part] = {"costs": costs[indices].tolist(), "returns": returns[indices].tolist(),
                       "source_index": indices.tolist()}
    (out / SCORING).write_text(json.dumps(truth, indent=1) + "\n")
    return {"out": str(out), "safe": len(chosen), "unlabelled": len(others), "cost_limit": cost_limit,
            "safe_among_unlabelled": int((costs[others] <= cost_limit).sum())}


def read_split(folder: Path) -> Split:
    """The two parts of a split. Raises `DatasetError`."""
    if (folder / f"{SAFE}.hdf5").is_file():
        return Split(read_dsrl(folder / f"{SAFE}.hdf5"), read_dsrl(folder / f"{UNLABELLED}.hdf5"))
    if not (folder / SAFE).is_dir():
        raise DatasetError(f"{folder}: expected the folders {SAFE} and {UNLABELLED}, or {SAFE}.hdf5 and "
                           f"{UNLABELLED}.hdf5; make them with `safe-policy dataset split-safe`")
    return Split(EpisodeStore(folder / SAFE), EpisodeStore(folder / UNLABELLED))


def read_truth(folder: Path) -> np.ndarray:
    """(E,) bool, whether each episode is safe: D^S in order, then D^U. For scoring. Raises `DatasetError`."""
    path = folder / SCORING
    try:
        truth = json.loads(path.read_text())
        costs = np.array(truth[SAFE]["costs"] + truth[UNLABELLED]["costs"], float)
        return costs <= truth["cost_limit"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error!r})") from error


def _without_costs(dataset: DsrlDataset, episodes: np.ndarray) -> DsrlDataset:
    rows = np.concatenate([np.arange(dataset.starts[episode], dataset.starts[episode + 1]) for episode in episodes])
    return DsrlDataset.from_arrays(
        observations=dataset.observations[rows], next_observations=dataset.next_observations(rows),
        actions=dataset.actions[rows], rewards=dataset.rewards[rows], costs=np.zeros(len(rows), np.float32),
        terminals=dataset.terminals[rows], timeouts=dataset.timeouts[rows], specs=dataset.specs)


def _blinded(store: EpisodeStore, index: int) -> Episode:
    """An episode of the store without costs, and without what a gate or a person did about them."""
    rows, summary = store.rows_of(index), store.summaries[index]
    steps, terminated = summary.rows - 1, rows["is_terminal"][1:]
    executed = rows["next_action"][:-1]
    return Episode(
        {name: rows[name] for name in store.specs.observation}, executed, executed, np.zeros_like(executed),
        np.zeros(steps, bool), [""] * steps, rows["reward"][1:], np.zeros(steps, np.float32), terminated,
        rows["is_last"][1:] & ~terminated, np.arange(steps + 1),
        {name: value for name, value in summary.metadata.items() if name in KEPT_METADATA})
