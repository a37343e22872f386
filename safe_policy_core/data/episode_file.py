"""One episode, and the HDF5 file it is kept in.

A file is written once, atomically, and carries the SHA-256 of its content, so that a truncated
or altered file is recognised when it is read and never trains a policy silently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from safe_policy_core.data.hdf5_fields import stored_field, stored_fields
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs

STEP_FIELDS: dict[str, tuple[str, str]] = {
    "executed_action": ("action/executed", "float32"),
    "policy_action": ("action/policy", "float32"),
    "human_action": ("action/human", "float32"),
    "intervention": ("intervention", "bool"),
    "reward": ("reward", "float32"),
    "cost": ("cost", "float32"),
    "terminated": ("terminated", "bool"),
    "truncated": ("truncated", "bool"),
}
"""Attribute of `Episode` -> dataset in the file and dtype; one row per step."""
_ACTION_FIELDS = ("executed_action", "policy_action", "human_action")
_FIELDS = {**STEP_FIELDS, "time_ns": ("time_ns", "int64")}
_FRAMES_PER_CHUNK = 32
_DEFLATE_LEVEL = 6
"""Frames look alike; the longer matches that zlib finds between them at this level are also faster to unpack than
those of level 4. Level 9 takes four times as long to write and is no faster to read."""


@dataclass
class Episode:
    """T steps. Row t of a step field belongs to the step from observation t to observation t + 1.

    observations: by name, T + 1 rows each, in the dtype of the spec (images uint8 HxWx3).
    executed_action, policy_action, human_action: (T, action_dim) float32, in the action spec's
        scale: what ran after every limit, what the policy asked for, what a person asked for
        (zeros where nobody did).
    intervention: (T,) bool, whether the person's action was the one passed on.
    filter_reason: T strings, why the executed action differs from the requested one, or "".
    reward, cost: (T,) float32. terminated, truncated: (T,) bool, never merged.
    time_ns: (T + 1,) int64, when each observation was captured.
    metadata: JSON-ready; `specs` (`Specs.to_json()`) is required.
    """

    observations: dict[str, np.ndarray]
    executed_action: np.ndarray
    policy_action: np.ndarray
    human_action: np.ndarray
    intervention: np.ndarray
    filter_reason: list[str]
    reward: np.ndarray
    cost: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    time_ns: np.ndarray
    metadata: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of steps T."""
        return len(self.executed_action)

    @property
    def specs(self) -> Specs:
        """The specs of the environment it was recorded in. Raises `DatasetError` without them."""
        try:
            return Specs.from_json(self.metadata["specs"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"metadata specs: missing or malformed ({error!r}), expected Specs.to_json()") from error

    @property
    def success(self) -> bool:
        """`metadata["success"]` where the recorder knew it, else whether the task ended with a reward."""
        return succeeded(self.metadata, self.terminated, self.reward)

    def validated(self) -> Episode:
        """This episode with arrays in their declared dtypes. Raises `DatasetError` naming the first bad field."""
        steps = len(self.executed_action)
        if steps == 0:
            raise DatasetError("action/executed: expected at least one step, got none")
        specs = self.specs
        if extra := self.observations.keys() ^ specs.observation.keys():
            raise DatasetError(f"observation: {sorted(extra)} not both recorded and in metadata specs")
        if not all(name.isprintable() for name in self.observations):
            raise DatasetError(f"observation: expected printable names, got {sorted(self.observations)}")
        observations = {name: _rows(f"observation/{name}", self.observations[name], steps + 1, spec.dtype, spec.shape)
                        for name, spec in specs.observation.items()}
        arrays = {}
        for name, (dataset, dtype) in STEP_FIELDS.items():
            shape = specs.action.shape if name in _ACTION_FIELDS else ()
            arrays[name] = _rows(dataset, getattr(self, name), steps, dtype, shape)
        if (arrays["cost"] < 0).any():
            raise DatasetError(f"cost: expected numbers >= 0, got {arrays['cost'].min()}")
        for name in ("terminated", "truncated"):
            if arrays[name][:-1].any():
                raise DatasetError(f"{name}: expected only at the last of {steps} steps, "
                                   f"got it at step {int(arrays[name].argmax())}")
        reasons = list(self.filter_reason)
        if len(reasons) != steps or not all(isinstance(reason, str) for reason in reasons):
            raise DatasetError(f"filter_reason: expected {steps} strings, got {len(reasons)}")
        if not all(reason.isprintable() for reason in reasons):
            raise DatasetError("filter_reason: expected printable text")
        try:
            metadata = json.loads(json.dumps(self.metadata, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise DatasetError(f"metadata: expected JSON values ({error})") from error
        return Episode(observations, filter_reason=reasons, metadata=metadata,
                       time_ns=_rows("time_ns", self.time_ns, steps + 1, "int64", ()), **arrays)


def succeeded(metadata: dict[str, Any], terminated: np.ndarray, reward: np.ndarray) -> bool:
    """See `Episode.success`."""
    return bool(metadata["success"] if "success" in metadata else terminated[-1] and reward[-1] > 0)


def _rows(name: str, value: Any, rows: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as a contiguous (rows, *shape) array of `dtype`; floats of another width are converted."""
    array = np.asarray(value)
    if array.shape != (rows, *shape):
        raise DatasetError(f"{name}: expected shape {(rows, *shape)}, got {array.shape}")
    try:
        expected = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{name}: metadata specs: unknown dtype {dtype!r}") from error
    if array.dtype != expected and not (expected.kind == "f" and array.dtype.kind in "fiu"):
        raise DatasetError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    array = np.ascontiguousarray(array, expected)
    if expected.kind == "f" and not np.isfinite(array).all():
        raise DatasetError(f"{name}: expected finite numbers, row {int(np.argwhere(~np.isfinite(array))[0][0])} is not")
    return array


def _datasets(episode: Episode) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a validated episode under its name in the file, in a fixed order."""
    for name in sorted(episode.observations):
        yield f"observation/{name}", episode.observations[name]
    for name, (dataset, _) in STEP_FIELDS.items():
        yield dataset, getattr(episode, name)
    yield "time_ns", episode.time_ns


def content_hash(episode: Episode) -> str:
    """SHA-256 (hex) over every field and the metadata; independent of how a file stores them."""
    episode = episode.validated()
    digest = hashlib.sha256()
    for name, array in _datasets(episode):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    digest.update(json.dumps([episode.filter_reason, episode.metadata], sort_keys=True).encode())
    return digest.hexdigest()


def write_episode(path: Path | str, episode: Episode) -> str:
    """Writes one HDF5 file atomically and returns its SHA-256.

    A crash at any point leaves either no file or the whole one. Raises `DatasetError` naming the
    file and field when the episode has no steps or its fields do not fit together.
    """
    path = Path(path)
    try:
        episode = episode.validated()
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    digest = content_hash(episode)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            for name, array in _datasets(episode):
                # Images shrink to a fraction; gzip is lossless and every HDF5 reader has it.
                images = array.ndim >= 4
                chunks = (min(_FRAMES_PER_CHUNK, len(array)), *array.shape[1:]) if images else None
                file.create_dataset(name, data=array, chunks=chunks, compression="gzip" if images else None,
                                    compression_opts=_DEFLATE_LEVEL if images else None)
            file.create_dataset("filter_reason", data=episode.filter_reason, dtype=h5py.string_dtype())
            file.attrs["metadata"] = json.dumps(episode.metadata, sort_keys=True)
            file.attrs["sha256"] = digest
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)
    return digest


def _sync(path: Path) -> None:
    """Forces a file or a directory entry to disk, so that a power cut after the rename loses nothing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_episode(path: Path | str) -> Episode:
    """Reads and verifies one file. Raises `DatasetError` naming the file and the field."""
    return read_verified(path)[0]


def read_verified(path: Path | str) -> tuple[Episode, str]:
    """An episode and its `content_hash`, which the file's own was compared with. Raises as `read_episode`."""
    path = Path(path)
    with _opened(path) as file:
        episode, recorded = _read(file)
        actual = content_hash(episode)
    if actual != recorded:
        raise DatasetError(f"{path}: sha256: content gives {actual[:12]}, the file says {str(recorded)[:12]}; it was "
                           "altered or damaged: convert it again from its recording or remove it")
    return episode, actual


def read_tracks(path: Path | str) -> Episode:
    """An episode without its pictures (their specs left out too), several times as fast as `read_episode`.

    Shapes and values are checked; the checksum is not, because it covers the pictures. Raises `DatasetError`.
    """
    with _opened(Path(path)) as file:
        episode, _ = _read(file, pictures=False)
        return episode.validated()


def read_fields(path: Path | str, names: Iterable[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Step fields (`time_ns` too) by their names in `Episode`, and the metadata: half the time of `read_tracks`.

    They have the rows of as many steps as the file has actions. Whatever else is in the file is not looked at. Raises
    `DatasetError` naming the file and the field.
    """
    with _opened(Path(path)) as file:
        metadata = _reading("metadata", lambda: dict(json.loads(file.attrs["metadata"])))
        action = _reading("action/executed", lambda: stored_field(file, "action/executed").shape)
        if len(action) != 2 or not action[0]:
            raise DatasetError(f"action/executed: expected at least one step, got shape {action}")

        def field(name: str) -> np.ndarray:
            dataset, dtype = _FIELDS[name]
            return _rows(dataset, _reading(dataset, lambda: stored_field(file, dataset).read()),
                         action[0] + (name == "time_ns"), dtype, action[1:] if name in _ACTION_FIELDS else ())

        return {name: field(name) for name in names}, metadata


def read_pictures(path: Path | str, rows: slice | list[int] = slice(None), name: str = "image") -> np.ndarray:
    """Rows (growing, if a list) of one image observation, (N, H, W, 3) uint8.

    Raises `DatasetError` when the file has no RGB pictures of that name.
    """
    with _opened(Path(path)) as file:
        field = _reading(f"observation/{name}", lambda: stored_field(file, f"observation/{name}"))
        if field.dtype != np.uint8 or field.shape[3:] != (3,):
            raise DatasetError(f"observation/{name}: expected (N, H, W, 3) uint8 pictures")
        return _reading(f"observation/{name}", lambda: field.rows(rows))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """The file, open to read; every `DatasetError` from inside names it."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such episode file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{path}: truncated or not an HDF5 file; convert it again from its recording "
                           f"or remove it ({str(error).splitlines()[0]})") from error


def _read(file: h5py.File, pictures: bool = True) -> tuple[Episode, str]:
    items = _reading("fields", lambda: stored_fields(file))
    known = {dataset for dataset, _ in STEP_FIELDS.values()} | {"time_ns", "filter_reason"}
    if extra := sorted(name for name in items if name not in known and not name.startswith("observation/")):
        raise DatasetError(f"{extra[0]}: unexpected field")

    def values(name: str) -> np.ndarray:
        return _reading(name, lambda: items[name].read())

    metadata = _reading("metadata", lambda: json.loads(file.attrs["metadata"]))
    observations = {name.removeprefix("observation/"): values(name) for name, item in items.items()
                    if name.startswith("observation/") and (pictures or len(item.shape) < 4)}
    if not pictures:
        metadata = _reading("metadata specs", lambda: {**metadata, "specs": {
            **metadata["specs"], "observation": {name: spec for name, spec in metadata["specs"]["observation"].items()
                                                 if name in observations}}})
    arrays = {name: values(dataset) for name, (dataset, _) in STEP_FIELDS.items()}
    reasons = _reading("filter_reason", lambda: items["filter_reason"].texts())
    digest = _reading("sha256", lambda: str(file.attrs["sha256"]))
    return Episode(observations, filter_reason=reasons, time_ns=values("time_ns"), metadata=metadata,
                   **arrays), digest


def _reading(name: str, read: Callable[[], Any]) -> Any:
    """What `read` gives, with every way in which HDF5 reports damage turned into a `DatasetError` that names it."""
    try:
        return read()
    except KeyError as error:
        raise DatasetError(f"{name}: missing") from error
    except (OSError, RuntimeError, ValueError, IndexError, TypeError, AttributeError, MemoryError, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{name}: cannot be read ({reason})") from error
