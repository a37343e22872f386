"""Whether every file of a dataset is whole: checksums, order of time, duplicates, names.

A file made to harm may crash the HDF5 library itself; then that file gets its line and the others go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_collection.conversion.recording_file import RecordingFile
from data_collection.dataset.files import refusal
from data_collection.isolation import CRASHED, in_workers
from data_collection.recording import unfinished
from data_collection.recording.writer import PART_SUFFIX
from safe_policy_core.data.dsrl import is_dsrl_file, read_dsrl
from safe_policy_core.data.episode_file import read_verified
from safe_policy_core.errors import DatasetError, UserError


@dataclass(frozen=True)
class Checked:
    """What one file turned out to be.

    problem: one line, "" when it is whole. content: hex digest of what it holds, "" when unknown.
    steps: control steps in it. episode_id: what the recorder called it, "" when it did not.
    """

    path: Path
    problem: str = ""
    content: str = ""
    steps: int = 0
    episode_id: str = ""


def check_file(path: Path) -> Checked:
    """Reads everything in one file and compares it with its checksums. Never raises for a bad file."""
    try:
        if reason := refusal(path):
            return Checked(path, reason)
        if path.name.endswith(PART_SUFFIX):
            return _part(path)
        return _recording(path) if path.suffix == ".mcap" else _episode(path)
    except UserError as error:
        return Checked(path, " ".join(str(error).removeprefix(f"{path}: ").split()))
    except OSError as error:
        return Checked(path, f"cannot be read ({error.strerror or error})")


def check_files(paths: Iterable[Path], workers: int) -> Iterator[Checked]:
    """One result a file, in their order; files that crash a reader cost only themselves."""
    return (result or Checked(path, CRASHED) for path, result in in_workers(_checked, paths, workers))


def _checked(path: Path) -> Checked:
    return check_file(path)


def _part(path: Path) -> Checked:
    if path not in unfinished(path.parent):
        return Checked(path)  # its recorder is still at it
    return Checked(path, "an unfinished recording: `safe-policy convert` on its folder recovers it")


def _recording(path: Path) -> Checked:
    recording = RecordingFile(path)
    digest = hashlib.sha256(json.dumps(recording.episode, sort_keys=True).encode())
    for time_ns, topic, kind, data in recording.raw(recording.topics):
        digest.update(f"{time_ns} {topic} {kind} {len(data)}\n".encode())
        digest.update(data)
    return Checked(path, content=digest.hexdigest(), episode_id=str(recording.episode.get("episode_id", "")))


def _episode(path: Path) -> Checked:
    if is_dsrl_file(path):
        dataset = read_dsrl(path)
        return Checked(path, content=dataset.data_hash(), steps=dataset.rows)
    episode, content = read_verified(path)
    backwards = np.diff(episode.time_ns) <= 0
    if backwards.any():
        raise DatasetError(f"time_ns: steps out of order, step {int(backwards.argmax())} does not advance")
    return Checked(path, "", content, len(episode), str(episode.metadata.get("episode_id", "")))
