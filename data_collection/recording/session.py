"""When to open, write and close recordings, apart from where messages come from."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_collection.recording.recovery import recover_all
from data_collection.recording.writer import McapEpisodeWriter
from safe_policy_core.errors import DatasetError, UserError

log = logging.getLogger(__name__)

_EPISODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Sample:
    """One message as it came. Times in nanoseconds since the epoch; sequence 0 means unknown."""

    topic: str
    type_name: str
    data: bytes
    log_time_ns: int
    publish_time_ns: int
    sequence: int = 0
    publisher: object = None


@dataclass(frozen=True)
class Recorded:
    """What came of one episode. path: the finished recording, None when it could not be written (see error)."""

    episode_id: str
    path: Path | None
    dropped: int
    error: str = ""


class RecordingSession:
    """Records one episode at a time, with what came just before its start and just after its end.

    directory: where episodes go that name none. preroll, tail [s]: the first observation is captured
    before the episode is announced, and the last step may arrive after its end. own_topics: topics
    whose messages belong to the episode after whose announcement they were published, however late
    or early they arrive.
    """

    def __init__(self, directory: Path | str, preroll: float = 1.0, tail: float = 0.2,
                 own_topics: Collection[str] = ()) -> None:
        self.directory = Path(directory)
        self._own_topics = frozenset(own_topics)
        self._announced_ns = 0
        self._preroll_ns = int(preroll * 1e9)
        self._tail = tail
        self._recent: deque[Sample] = deque()
        self._writer: McapEpisodeWriter | None = None
        self._end_at: float | None = None
        self._searched: set[Path] = set()
        self.episode_id: str | None = None
        self._error = ""

    def begin(self, episode_id: str, metadata: Mapping[str, Any], directory: Path | str | None = None,
              announced_ns: int = 0) -> None:
        """Opens a recording. Call `finish` first when one is open. Failures are told by `finish`.

        announced_ns: when the episode's announcement was published, see `own_topics`.
        """
        self.episode_id, self._error, self._end_at, self._announced_ns = episode_id, "", None, announced_ns
        folder = Path(directory) if directory else self.directory
        try:
            if not _EPISODE_ID.fullmatch(episode_id):
                raise DatasetError(f"episode_id: expected letters, digits, '.', '_' and '-', got {episode_id!r}")
            self._writer = McapEpisodeWriter(_free_name(folder, episode_id), {**metadata, "episode_id": episode_id})
            for sample in self._recent:
                self._write(sample)
        except (OSError, UserError) as error:
            self._fail(error)

    def add(self, sample: Sample) -> None:
        """Writes a message to the open recording, and keeps it for `preroll` seconds in case an episode begins."""
        self._recent.append(sample)
        while self._recent[0].log_time_ns < sample.log_time_ns - self._preroll_ns:
            self._recent.popleft()
        if self._writer is not None:
            try:
                self._write(sample)
            except (OSError, UserError) as error:
                self._fail(error)

    def end(self, now: float) -> None:
        """The episode ended at `now` [s, steady clock]; messages are taken for `tail` seconds more."""
        if self.episode_id is not None and self._end_at is None:
            self._end_at = now + self._tail

    @property
    def failure(self) -> str:
        """Why the episode that runs is no longer recorded, "" while it is."""
        return self._error if self.episode_id is not None else ""

    def due(self, now: float) -> bool:
        """Whether it is time to call `finish`."""
        return self._end_at is not None and now >= self._end_at

    def finish(self) -> Recorded | None:
        """Closes the recording, whether `end` was called or not. None when there is none."""
        if self.episode_id is None:
            return None
        path, dropped = None, 0
        if self._writer is not None:
            dropped = self._writer.dropped
            try:
                path = self._writer.close()
            except OSError as error:
                self._fail(error)
            self._writer = None
        result = Recorded(self.episode_id, path, dropped, self._error)
        self.episode_id, self._end_at = None, None
        return result

    def recover(self, directory: Path | str | None = None) -> list[Path]:
        """Completes what a crash left behind in a folder, see `recover_all`; once per folder. Returns the new paths."""
        folder = Path(directory) if directory else self.directory
        if folder in self._searched or not folder.is_dir():
            return []
        self._searched.add(folder)
        return [result.path for result in recover_all(folder)]

    def _write(self, sample: Sample) -> None:
        assert self._writer is not None
        if sample.topic in self._own_topics and sample.publish_time_ns < self._announced_ns:
            return
        self._writer.write(sample.topic, sample.type_name, sample.data, sample.log_time_ns, sample.publish_time_ns,
                           sample.sequence, sample.publisher)

    def _fail(self, error: Exception) -> None:
        kept = ""
        if self._writer is not None:
            self._writer.abort()
            kept = f"; what was written until then is kept in {self._writer.part}"
            self._writer = None
        self._error = f"recording {self.episode_id}: {error}{kept}"
        log.error("%s", self._error)


def _free_name(folder: Path, episode_id: str) -> Path:
    """`episode_id`.mcap, or with a number where that is taken: a recording is never overwritten."""
    for number in range(1000):
        path = folder / (f"{episode_id}.mcap" if not number else f"{episode_id}-{number}.mcap")
        if not any(path.with_name(path.name + suffix).exists() for suffix in ("", ".part")):
            return path
    raise DatasetError(f"{folder}: a thousand recordings named {episode_id}; choose another folder")
