"""What the list shows of an episode file, and what earlier reviews of the same folder found in its files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.data.episode_file import read_fields, succeeded
from safe_policy_core.data.episodes import read_episode
from safe_policy_core.data.labels import IDENTITY, LEVELS, identity_hash
from safe_policy_core.errors import DatasetError

Stamp = tuple[int, ...]
"""Size, times and place of a file. Whoever changes a file can set the time of its change, but not that of its inode."""
_FORMAT = 1
"""Of the kept facts; grows with every change to what they mean."""


@dataclass(frozen=True)
class Facts:
    """recorded: reward and cost, (T,) each. problem: "" for an episode. whole: whether its checksum was compared."""

    recording: str = ""
    recorded: dict[str, np.ndarray] = field(default_factory=dict)
    task: str = ""
    success: bool = False
    problem: str = ""
    whole: bool = False


def read_facts(path: Path) -> Facts:
    try:
        found, metadata = read_fields(path, (*IDENTITY, *LEVELS, "terminated"))
    except DatasetError as error:
        return Facts(problem=str(error))
    return Facts(identity_hash(found), {kind: found[kind] for kind in LEVELS}, str(metadata.get("task", "")),
                 succeeded(metadata, found["terminated"], found["reward"]))


def damage(path: Path) -> str:
    """Why all of a file, with its pictures, cannot be used; "" when it can."""
    try:
        read_episode(path)
    except DatasetError as error:
        return str(error)
    return ""


def stamp(path: Path) -> Stamp | None:
    """None for what is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino


class KeptFacts:
    """Facts of a folder's files, so that a folder opens at once for the second time.

    They are in the cache of the person who reviews, and not in the folder: who made a dataset has no say in them.
    """

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.path = cache / "safe-policy" / "review" / f"{name}.json"
        self._rows: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            content = json.loads(self.path.read_bytes())
            self._rows = dict(content["files"]) if content["format"] == _FORMAT else {}

    def of(self, name: str, now: Stamp | None) -> Facts | None:
        """What is known of a file with this stamp; None when it is not known or has changed."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = self._rows[name]
            if tuple(row["stamp"]) == now:
                return Facts(str(row["recording"]), {kind: np.array(row[kind], np.float32) for kind in LEVELS},
                             str(row["task"]), bool(row["success"]), whole=bool(row["whole"]))
        return None

    def keep(self, found: Iterable[tuple[str, Stamp, Facts]]) -> None:
        """Replaces what was kept. A cache that cannot be written is done without."""
        rows = {name: {"stamp": list(now), "recording": facts.recording, "task": facts.task, "success": facts.success,
                       "whole": facts.whole, **{kind: facts.recorded[kind].tolist() for kind in LEVELS}}
                for name, now, facts in found}
        if rows == self._rows:
            return
        partial = self.path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"format": _FORMAT, "files": rows}))
            os.replace(partial, self.path)
