"""Plain NumPy files: one .npz an episode with the arrays of its training file under the same names. Never pickled."""

from __future__ import annotations

import json
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from data_collection.conversion.whole import appearing
from safe_policy_core.data.episode_file import STEP_FIELDS, Episode, content_hash
from safe_policy_core.data.hdf5_fields import MAX_FIELD_BYTES
from safe_policy_core.errors import DatasetError

NOT_KEPT: tuple[str, ...] = ()
"""A .npz holds all of an episode."""
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, MemoryError, NotImplementedError,
           SyntaxError, OverflowError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)
"""What NumPy and zipfile raise for damaged files."""


def write_npz(path: Path, episode: Episode) -> Path:
    """Writes an episode, atomically. Raises `DatasetError` for one whose fields do not fit together."""
    episode = episode.validated()
    arrays = {f"observation/{name}": values for name, values in episode.observations.items()}
    arrays |= {dataset: getattr(episode, name) for name, (dataset, _) in STEP_FIELDS.items()}
    texts = {"filter_reason": np.array(episode.filter_reason, str), "metadata": np.array(json.dumps(episode.metadata)),
             "sha256": np.array(content_hash(episode))}
    try:
        with appearing(path) as hidden, open(hidden, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, time_ns=episode.time_ns, **arrays, **texts)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error})") from error
    return path


def read_npz(path: Path) -> Episode:
    """Reads and verifies an episode. Raises `DatasetError` naming the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(item.file_size for item in archive.infolist()) > MAX_FIELD_BYTES:
                raise DatasetError(f"{path}: claims more than {MAX_FIELD_BYTES} bytes")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        metadata = json.loads(str(arrays["metadata"]))
        observations = {name.removeprefix("observation/"): values for name, values in arrays.items()
                        if name.startswith("observation/")}
        episode = Episode(observations, filter_reason=arrays["filter_reason"].tolist(), time_ns=arrays["time_ns"],
                          metadata=metadata, **{name: arrays[key] for name, (key, _) in STEP_FIELDS.items()})
        if content_hash(episode) != str(arrays["sha256"]):
            raise DatasetError("sha256: does not fit the content")
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{path}: truncated, damaged or not an episode's .npz ({reason})") from error
    return episode
