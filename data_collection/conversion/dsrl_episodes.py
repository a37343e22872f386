"""Episodes to and from one DSRL file (`safe_policy_core.data.dsrl` reads and writes it)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset, read_dsrl, write_dsrl
from safe_policy_core.data.episode_file import Episode
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs

NOT_KEPT = ("pictures and every other observation than the one vector", "requested and human actions, interventions",
            "reasons of the safety filter", "times of the steps")
PERIOD_NS = 100_000_000
"""Imported steps get times this far apart; the format has none."""


def write_dsrl_file(path: Path, episodes: Iterable[tuple[str, Episode]]) -> Path:
    """All episodes in one file, in order. Raises `DatasetError` unless each has the same one vector observation."""
    columns: dict[str, list[np.ndarray]] = {}
    specs: Specs | None = None
    described = []
    for name, episode in episodes:
        vector = _vector(name, episode)
        found = Specs({vector: episode.specs.observation[vector]}, episode.specs.action, episode.specs.scales)
        if specs is not None and (difference := specs.difference(found)):
            raise DatasetError(f"{name}: specs differ from the other episodes: {difference}")
        specs = found
        timeouts = episode.truncated.copy()
        timeouts[-1] |= not episode.terminated[-1]
        values = episode.observations[vector]
        for key, array in (("observations", values[:-1]), ("next_observations", values[1:]),
                           ("actions", episode.executed_action), ("rewards", episode.reward), ("costs", episode.cost),
                           ("terminals", episode.terminated), ("timeouts", timeouts)):
            columns.setdefault(key, []).append(array)
        described.append({"name": name, **{key: value for key, value in episode.metadata.items() if key != "specs"}})
    if specs is None:
        raise DatasetError(f"{path}: no episodes to write")
    write_dsrl(path, DsrlDataset.from_arrays(**{key: np.concatenate(arrays) for key, arrays in columns.items()},
                                             specs=specs, name=str(path), metadata={"episodes": described}))
    return path


def dsrl_episodes(path: Path) -> Iterator[tuple[str, Episode]]:
    """(name, episode) in the file's order. Raises `DatasetError` where an episode's observations do not connect."""
    dataset = read_dsrl(path)
    if dataset.every_next_observation is not None:
        raise DatasetError(f"{path}: next_observations: not the following rows (a thinned file), no episodes in it")
    vector = next(iter(dataset.specs.observation))
    described = dataset.metadata.get("episodes") if isinstance(dataset.metadata, dict) else None
    for index in range(len(dataset)):
        rows = slice(int(dataset.starts[index]), int(dataset.starts[index + 1]))
        actions = dataset.actions[rows]
        known = described[index] if isinstance(described, list) and len(described) == len(dataset) else {}
        known = dict(known) if isinstance(known, dict) else {}
        known.pop("name", None)
        observations = np.concatenate([dataset.observations[rows], dataset.final_observations[index:index + 1]])
        yield f"{path.stem}-{index:06d}", Episode(
            {vector: observations}, actions, actions, np.zeros_like(actions), np.zeros(len(actions), bool),
            [""] * len(actions), dataset.rewards[rows], dataset.costs[rows], dataset.terminals[rows],
            dataset.timeouts[rows], np.arange(len(actions) + 1) * PERIOD_NS,
            {**known, "source": path.name, "specs": dataset.specs.to_json()})


def _vector(name: str, episode: Episode) -> str:
    vectors = [key for key, spec in episode.specs.observation.items() if len(spec.shape) == 1]
    if len(vectors) != 1:
        raise DatasetError(f"{name}: DSRL holds one vector observation, the episode has {sorted(vectors)}")
    return vectors[0]
