"""Where batches come from: episode files, or one DSRL file, opened by what they contain."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset, downloaded_path, find_dsrl_file, is_dsrl_file, read_dsrl
from safe_policy_core.data.dsrl_tasks import load_tasks
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs

SAFE, UNLABELLED = "safe", "unlabelled"
"""The two parts of a split for learning without cost labels, see `split_safe`."""
KNOWN_SAFE = "demonstrations"
"""Field of a dataset's metadata: numbers of the episodes that are known to be safe."""

log = logging.getLogger(__name__)


class DataSource(Protocol):
    """What training samples from: `EpisodeStore`, `TransitionStore` or `SequenceStore`."""

    @property
    def specs(self) -> Specs: ...

    def __len__(self) -> int: ...

    def data_hash(self) -> str: ...

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]: ...


def open_data(paths: Sequence[Path], skip_broken: bool = False) -> EpisodeStore | DsrlDataset:
    """One DSRL file, by path, name or task (`find_dsrl_file`), or the episodes of files and folders.

    The folder of a split of a DSRL file is both its parts, of which the demonstrations are named (`KNOWN_SAFE`).
    Raises `DatasetError`, also for several DSRL files: their episodes belong to different tasks. Steps of a DSRL file
    after the end of its last episode are logged.
    """
    parts = [paths[0] / f"{part}.hdf5" for part in (SAFE, UNLABELLED)] if len(paths) == 1 else []
    if parts and all(part.is_file() for part in parts):
        return together(*map(read_dsrl, parts))
    names = [str(path) for path in paths]
    dsrl = [name for name in names if means_dsrl(name)]
    if not dsrl:
        if len(names) == 1 and paths[0].is_file():
            _require_readable(names[0])
        return EpisodeStore(paths, skip_broken=skip_broken)
    if len(names) > 1:
        raise DatasetError(f"{dsrl[0]}: a DSRL file is trained on alone; {len(names)} were named")
    dataset = read_dsrl(find_dsrl_file(dsrl[0]))
    if dataset.dropped:
        log.warning("%s: the last %d of %d steps are left out: their episode has no end", dataset.name, dataset.dropped,
                    dataset.rows + dataset.dropped)
    return dataset


def _require_readable(name: str) -> None:
    """A file named alone that cannot be opened may be meant as either kind, and is neither."""
    try:
        h5py.File(name).close()
    except OSError as error:
        raise DatasetError(f"{name}: truncated or not HDF5, neither an episode file nor a DSRL file; convert it or "
                           f"download it again ({error})") from error


def together(first: DsrlDataset, second: DsrlDataset) -> DsrlDataset:
    """The episodes of both, those of the first named as demonstrations."""
    both = (first, second)
    return DsrlDataset.from_arrays(
        metadata={KNOWN_SAFE: list(range(len(first)))},
        next_observations=np.concatenate([part.next_observations(np.arange(part.rows)) for part in both]),
        specs=first.specs, **{name: np.concatenate([getattr(part, name) for part in both]) for name in
                              ("observations", "actions", "rewards", "costs", "terminals", "timeouts")})


def means_dsrl(name: str) -> bool:
    """Whether a DSRL file is meant: by what it contains, or, where there is no such path, by the name of a task or of a
    file that `$DSRL_DATASET_DIR` has or may have."""
    if Path(name).exists():
        return is_dsrl_file(name)
    tasks = load_tasks()
    return name in tasks or any(name == task.file for task in tasks.values()) or downloaded_path(name).is_file()
