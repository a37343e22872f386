"""A fine-tuning session on disk: which episodes ran, which were learned from, what acts next.

Every change is written before the next thing happens, so that a session whose process, learner or machine
died goes on at the same episode. Nothing that ran is repeated or forgotten: an episode file that no row tells
of is a row from then on, with its steps and costs.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safe_policy_core.data.episodes import read_episode
from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.training.events import Events

log = logging.getLogger(__name__)

STATE, LOCK, ROWS, EPISODES = "session.json", ".session.lock", "finetune.jsonl", "episodes"
Row = dict[str, Any]


class FinetuneSession:
    """rows: episodes that were learned from. pending: one that ran and was not learned from yet.

    identity: what must not change between a session and its continuation (task, seed, updates, ...).
    checkpoint: the weights that act next.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any], checkpoint: str) -> None:
        self.directory, self.identity, self.checkpoint = directory, dict(identity), checkpoint
        self.rows: list[Row] = []
        self.pending: Row | None = None
        self._events: Events | None = None
        directory.mkdir(parents=True, exist_ok=True)
        # Held until this process ends, however it ends.
        self._lock = (directory / LOCK).open("w")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ConfigurationError(f"out: another process runs the session in {directory}") from error

    @classmethod
    def begin(cls, directory: Path, identity: Mapping[str, Any], checkpoint: str = "") -> FinetuneSession:
        """A new session. Raises `ConfigurationError` when the folder holds one already."""
        if (directory / STATE).exists():
            raise ConfigurationError(f"out: {directory} holds a session; go on with it by --resume, or name another "
                                     "folder")
        session = cls(directory, identity, checkpoint)
        session._write()
        return session

    @classmethod
    def resume(cls, directory: Path, identity: Mapping[str, Any]) -> FinetuneSession:
        """Goes on with the session in `directory`. Raises `ConfigurationError` naming what differs."""
        try:
            # Before the lock, whose file would make the folder of a session that never was.
            state = json.loads((directory / STATE).read_text())
            session = cls(directory, state["identity"], state["checkpoint"])
            session.rows, session.pending = list(state["rows"]), state["pending"]
        except OSError as error:
            raise ConfigurationError(f"resume: {directory / STATE} cannot be read ({error.strerror}); there is no "
                                     "session to go on with") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"resume: {directory / STATE} is damaged ({error!r})") from error
        for name in session.identity.keys() | identity.keys():
            before, now = session.identity.get(name), identity.get(name)
            if before != now:
                raise ConfigurationError(f"{name}: the session in {directory} has {before!r}, this call {now!r}")
        # The log's last line may be torn.
        _replace(directory / ROWS, "".join(json.dumps(row) + "\n" for row in session.rows))
        return session

    @property
    def spent(self) -> float:
        """Cost of every episode that ran."""
        return float(sum(row["episode_cost"] for row in self._all()))

    @property
    def count(self) -> int:
        """Episodes that ran."""
        return len(self._all())

    def paths(self) -> list[str]:
        """Files of the episodes that were learned from."""
        return [row["path"] for row in self.rows if row["path"]]

    def acted(self, row: Row) -> None:
        """An episode ran; learning from it comes next."""
        self.pending = row
        self._write()

    def learned(self, outcome: Row, checkpoint: str) -> Row:
        """The pending episode was learned from, with `outcome`; `checkpoint` acts next. Returns the whole row."""
        if self.pending is None:
            raise RuntimeError("FinetuneSession.learned: no episode is pending")
        row = self.pending | outcome | {"cost_so_far": self.spent}
        self.rows.append(row)
        self.pending, self.checkpoint = None, checkpoint
        self._write()
        with (self.directory / ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._show(row)
        return row

    def _show(self, row: Row) -> None:
        count = len(self.rows)
        self._events = self._events or Events(self.directory / ROWS, count - 1)
        self._events.add(count, row, "episode")
        self._events.add(count, row.get("metrics") or {}, "finetune")
        self._events.flush()

    def unknown(self) -> list[Path]:
        """Episode files that no row tells of: what ran when the session was interrupted. Damaged ones are logged."""
        known = {Path(row["path"]).name for row in self._all() if row["path"]}
        found = []
        for path in sorted((self.directory / EPISODES).glob("*.h5"), key=lambda path: path.stat().st_mtime):
            if path.name in known:
                continue
            try:
                read_episode(path)
            except DatasetError as error:
                log.warning("left out: %s", error)
                continue
            found.append(path)
        return found

    def recover(self, path: Path) -> Row:
        """`acted` for an episode of which only the file is left."""
        episode = read_episode(path)
        row = {"task": episode.metadata.get("task", ""), "seed": int(episode.metadata.get("seed", 0)),
               "steps": len(episode), "episode_return": float(episode.reward.sum()),
               "episode_cost": float(episode.cost.sum()), "success": bool(episode.terminated[-1]),
               "violation": bool(episode.cost.sum() > 0), "terminated": bool(episode.terminated[-1]),
               "truncated": bool(episode.truncated[-1]), "online_share": None, "path": str(path),
               "message": "recovered: the session was interrupted at this episode"}
        self.acted(row)
        return row

    def _all(self) -> list[Row]:
        return self.rows + ([self.pending] if self.pending else [])

    def _write(self) -> None:
        _replace(self.directory / STATE, json.dumps({
            "identity": self.identity, "checkpoint": self.checkpoint, "rows": self.rows, "pending": self.pending}))


def _replace(path: Path, text: str) -> None:
    """Writes a file so that a crash leaves the old content or the new."""
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
