"""DSRL's HDF5 files (Liu et al. 2023): reading, checking and writing them with h5py alone.

    path = find_dsrl_file("PointGoal1")      # a path, a file name or a task, in $DSRL_DATASET_DIR
    dataset = read_dsrl(path)                # float32 once, no second copy
    dataset.observations                     # (N, observation size); actions, rewards, costs, terminals, timeouts
    dataset.starts                           # (E + 1,): episode e is rows starts[e] to starts[e + 1]
    dataset.returns, dataset.cost_returns    # (E,) undiscounted sums
    dataset.next_observations(index)         # gathered for any array of rows
    write_dsrl(path, DsrlDataset.from_arrays(observations=..., next_observations=..., actions=..., ...))

A file has the keys of `KEYS`, one row a step; episodes are contiguous and end where `terminals` or
`timeouts` is truthy. What is tolerated: other float widths, columns of shape (N, 1), flags of any
type, other keys beside these, and a fragment after the last end, which is dropped (`dropped`). What
is not, raises `DatasetError` with the file and the key: missing keys, lengths that differ, numbers
that are not finite, and a file without one whole episode.

Inside an episode the next observation is the following row, so that only the last one of each
episode is kept: 40,000 episodes of 1,000 steps with 60 sensors take 10 GB, not 20. A file in which
that does not hold (a thinned one) keeps all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from safe_policy_core.data.dsrl_tasks import load_tasks
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Spec, Specs

KEYS = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
DIRECTORY_VARIABLE = "DSRL_DATASET_DIR"
DEFAULT_DIRECTORY = "~/.dsrl/datasets"
"""Where DSRL's own downloads go without the variable."""
_MATRICES = ("observations", "next_observations", "actions")
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class DsrlDataset:
    """N steps of E whole episodes, float32 and bool.

    observations: (N, observation size). actions: (N, action size). rewards, costs: (N,).
    terminals, timeouts: (N,) bool, never merged. starts: (E + 1,) int64, the first row of each
    episode, then N. final_observations: (E, observation size), where each episode ended.
    every_next_observation: (N, observation size) where those are not the following rows, else None.
    specs: of the environment; files of other programs have a "vector" and actions in [-1, 1].
    dropped: rows after the last end of an episode, which are not here.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    costs: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray
    starts: np.ndarray
    final_observations: np.ndarray
    specs: Specs
    every_next_observation: np.ndarray | None = None
    name: str = "dataset"
    dropped: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, *, observations: np.ndarray, next_observations: np.ndarray, actions: np.ndarray,
                    rewards: np.ndarray, costs: np.ndarray, terminals: np.ndarray, timeouts: np.ndarray,
                    specs: Specs | None = None, name: str = "dataset", metadata: dict[str, Any] | None = None
                    ) -> DsrlDataset:
        """From one array a key, checked as a file is. Raises `DatasetError`."""
        arrays = {"observations": observations, "next_observations": next_observations, "actions": actions,
                  "rewards": rewards, "costs": costs, "terminals": terminals, "timeouts": timeouts}
        return _assemble({key: np.asarray(value) for key, value in arrays.items()}, name, specs, metadata or {})

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.starts) - 1

    @property
    def rows(self) -> int:
        """Number of steps."""
        return len(self.rewards)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(E,) steps of each episode."""
        return np.diff(self.starts)

    @cached_property
    def returns(self) -> np.ndarray:
        """(E,) float64, undiscounted sums of rewards."""
        return np.add.reduceat(self.rewards, self.starts[:-1], dtype=np.float64)

    @cached_property
    def cost_returns(self) -> np.ndarray:
        """(E,) float64, undiscounted sums of costs, fractions included."""
        return np.add.reduceat(self.costs, self.starts[:-1], dtype=np.float64)

    @cached_property
    def last_rows(self) -> np.ndarray:
        """(N,) bool, whether a row is the last of its episode."""
        last = np.zeros(self.rows, bool)
        last[self.starts[1:] - 1] = True
        return last

    def episode_of(self, index: np.ndarray) -> np.ndarray:
        """The episodes to which rows belong, in the shape of `index`."""
        return np.searchsorted(self.starts, index, side="right") - 1

    def next_observations(self, index: np.ndarray) -> np.ndarray:
        """(*index.shape, observation size): where the steps `index` led."""
        if self.every_next_observation is not None:
            return self.every_next_observation[index]
        found = self.observations[np.minimum(index + 1, self.rows - 1)]
        last = self.last_rows[index]
        found[last] = self.final_observations[self.episode_of(index[last])]
        return found

    @cached_property
    def _hash(self) -> str:
        digest = hashlib.sha256()
        for array in (self.observations, self.actions, self.rewards, self.costs, self.terminals, self.timeouts,
                      self.final_observations, self.every_next_observation):
            if array is not None:
                digest.update(str(array.shape).encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def data_hash(self) -> str:
        """SHA-256 of the content, whatever file it is in."""
        return self._hash


def find_dsrl_file(name: Path | str) -> Path:
    """A file by its path, or by its name or a task's name ("PointGoal1") in `$DSRL_DATASET_DIR`.

    Raises `DatasetError` saying where it was looked for.
    """
    if Path(name).is_file():
        return Path(name)
    path = downloaded_path(name)
    if path.is_file():
        return path
    raise DatasetError(f"{name}: no such DSRL file; looked for {Path(name).absolute()} and {path} (download it there, "
                       f"or name its folder in ${DIRECTORY_VARIABLE})")


def downloaded_path(name: Path | str) -> Path:
    """Where a file of this name, or of this task, is in `$DSRL_DATASET_DIR`, whether it is there or not."""
    folder = Path(os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY).expanduser()
    task = load_tasks().get(str(name))
    return folder / (task.file if task else name)


def is_dsrl_file(path: Path | str) -> bool:
    """Whether a file is HDF5 and has one of DSRL's keys at its top; it may still be unfit for reading."""
    try:
        with h5py.File(path) as file:
            return any(isinstance(file.get(key), h5py.Dataset) for key in KEYS)
    except OSError:
        return False


def read_dsrl(path: Path | str) -> DsrlDataset:
    """Reads a file as the module's docstring says. Raises `DatasetError`."""
    path = Path(path)
    try:
        with h5py.File(path) as file:
            specs = Specs.from_json(json.loads(file.attrs["specs"])) if "specs" in file.attrs else None
            metadata = json.loads(file.attrs.get("metadata", "{}"))
            columns = {key: file[key] for key in KEYS if isinstance(file.get(key), h5py.Dataset)}
            return _assemble(columns, str(path), specs, metadata)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read as a DSRL file ({error})") from error


def write_dsrl(path: Path | str, dataset: DsrlDataset) -> None:
    """Writes a file that DSRL and OSRL read too, atomically. `specs` and `metadata` become attributes."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"observations": dataset.observations, "actions": dataset.actions, "rewards": dataset.rewards,
               "costs": dataset.costs, "terminals": dataset.terminals, "timeouts": dataset.timeouts}
    try:
        with h5py.File(partial, "w") as file:
            for key, values in columns.items():
                file.create_dataset(key, data=values, compression="gzip")
            following = file.create_dataset("next_observations", dataset.observations.shape, np.float32,
                                            compression="gzip")
            for begin in range(0, dataset.rows, _ROWS_AT_ONCE):
                index = np.arange(begin, min(begin + _ROWS_AT_ONCE, dataset.rows))
                following[index[0]:index[-1] + 1] = dataset.next_observations(index)
            file.attrs["specs"] = json.dumps(dataset.specs.to_json())
            file.attrs["metadata"] = json.dumps(dataset.metadata)
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _assemble(columns: dict[str, Any], name: str, specs: Specs | None, metadata: dict[str, Any]) -> DsrlDataset:
    """A dataset from arrays or HDF5 datasets by key."""
    _check_shapes(columns, name)
    flags = {key: _flags(columns[key], f"{name}: {key}") for key in ("terminals", "timeouts")}
    ends = np.flatnonzero(flags["terminals"] | flags["timeouts"])
    if not len(ends):
        raise DatasetError(f"{name}: no whole episode: neither terminals nor timeouts is set in any of "
                           f"{len(flags['terminals'])} rows")
    starts = np.concatenate([[0], ends + 1]).astype(np.int64)
    rows = int(starts[-1])
    values = {key: _finite(columns[key], rows, f"{name}: {key}") for key in
              ("observations", "actions", "rewards", "costs")}
    size, action_size = values["observations"].shape[1], values["actions"].shape[1]
    specs = specs or Specs({"vector": Spec("observation/vector", (size,))},
                           Spec("action", (action_size,), low=-1.0, high=1.0))
    _check_specs(specs, size, action_size, name)
    final, every = _following(columns["next_observations"], values["observations"], starts, name)
    return DsrlDataset(values["observations"], values["actions"], values["rewards"], values["costs"],
                       flags["terminals"][:rows], flags["timeouts"][:rows], starts, final, specs, every, name,
                       len(flags["terminals"]) - rows, metadata)


def _flags(column: Any, where: str) -> np.ndarray:
    """(N,) bool. NaN would be true, and the end of an episode."""
    values = np.asarray(column[()]).reshape(-1)
    if not np.isfinite(values).all():
        raise DatasetError(f"{where}: row {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite (NaN or "
                           "infinite)")
    return values.astype(bool)


def _check_shapes(columns: dict[str, Any], name: str) -> None:
    if missing := [key for key in KEYS if key not in columns]:
        raise DatasetError(f"{name}: {missing[0]}: missing; a DSRL file has the keys {', '.join(KEYS)}")
    rows = columns["observations"].shape[0] if columns["observations"].ndim else 0
    for key, column in columns.items():
        shape = tuple(column.shape)
        wanted = "(N, size)" if key in _MATRICES else "(N,)"
        if (len(shape) != 2 or 0 in shape[1:]) if key in _MATRICES else (not shape or shape[1:] not in ((), (1,))):
            raise DatasetError(f"{name}: {key}: expected shape {wanted}, got {shape}")
        if shape[0] != rows:
            raise DatasetError(f"{name}: {key}: {shape[0]} rows, but observations has {rows}")
        if np.dtype(column.dtype).kind not in "fiub":
            raise DatasetError(f"{name}: {key}: expected numbers, got {column.dtype}")
    if columns["next_observations"].shape != columns["observations"].shape:
        raise DatasetError(f"{name}: next_observations: expected shape {tuple(columns['observations'].shape)} as "
                           f"observations, got {tuple(columns['next_observations'].shape)}")


def _check_specs(specs: Specs, size: int, action_size: int, name: str) -> None:
    vectors = [spec.shape for spec in specs.observation.values()]
    if vectors != [(size,)] or specs.action.shape != (action_size,):
        raise DatasetError(f"{name}: specs: expected one observation of {size} and an action of {action_size} numbers, "
                           f"got {vectors} and {specs.action.shape}")


def _pieces(column: Any, rows: int, where: str) -> Iterator[tuple[int, int, np.ndarray]]:
    """(begin, end, float32 rows) of the first `rows` of a column; refuses numbers that are not finite."""
    for begin in range(0, rows, _ROWS_AT_ONCE):
        end = min(begin + _ROWS_AT_ONCE, rows)
        # Overflow of a wider float becomes infinite and is named like any other infinity.
        with np.errstate(over="ignore"):
            piece = np.asarray(column[begin:end]).astype(np.float32, copy=False)
        if not np.isfinite(piece).all():
            row = begin + int(np.flatnonzero(~np.isfinite(piece.reshape(len(piece), -1)).all(1))[0])
            raise DatasetError(f"{where}: row {row} is not finite (NaN or infinite)")
        yield begin, end, piece


def _finite(column: Any, rows: int, where: str) -> np.ndarray:
    """The first `rows` of a column as float32, in one allocation; a column of shape (N, 1) becomes (N,)."""
    vector = where.endswith(("rewards", "costs"))
    values = np.empty(rows if vector else (rows, column.shape[1]), np.float32)
    for begin, end, piece in _pieces(column, rows, where):
        values[begin:end] = piece.reshape(-1) if vector else piece
    return values


def _following(column: Any, observations: np.ndarray, starts: np.ndarray, name: str
               ) -> tuple[np.ndarray, np.ndarray | None]:
    """The last next observation of each episode, and all of them where they are not the following rows."""
    rows, last = len(observations), starts[1:] - 1
    is_last = np.zeros(rows, bool)
    is_last[last] = True
    final, consistent = np.empty((len(last), observations.shape[1]), np.float32), True
    for begin, end, piece in _pieces(column, rows, f"{name}: next_observations"):
        inside, (low, high) = is_last[begin:end], np.searchsorted(last, (begin, end))
        final[low:high] = piece[inside]
        whole = end - begin - (end == rows)  # the file's last row has no following one, and is an episode's last
        same = (piece[:whole] == observations[begin + 1:begin + 1 + whole]).all(1)
        consistent &= bool((same | inside[:whole]).all())
    return final, None if consistent else _finite(column, rows, f"{name}: next_observations")

