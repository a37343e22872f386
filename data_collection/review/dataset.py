"""The episodes of one folder with their labels: what the review page shows, and what it changes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_collection.isolation import CRASHED, in_workers
from data_collection.review.facts import Facts, KeptFacts, damage, read_facts, stamp
from safe_policy_core.data.episode_file import Episode, read_tracks
from safe_policy_core.data.episodes import episode_files
from safe_policy_core.data.labels import LEVELS, Label, LabelLayer
from safe_policy_core.data.scores import Score, read_scores
from safe_policy_core.errors import DatasetError, printable

log = logging.getLogger(__name__)

BATCH = 16
"""Files that the list gets at once."""

T = TypeVar("T")


@dataclass
class Entry:
    """One episode file. facts: as recorded, empty until it was read. problem: why it cannot be used, or ""."""

    path: Path
    name: str
    problem: str = ""
    facts: Facts = field(default_factory=Facts)

    @property
    def recording(self) -> str:
        """`recording_id`; "" until the file was read."""
        return self.facts.recording

    @property
    def recorded(self) -> dict[str, np.ndarray]:
        """Reward and cost as recorded, (T,) each."""
        return self.facts.recorded

    @property
    def steps(self) -> int:
        return len(self.recorded["cost"]) if self.recorded else 0


class ReviewDataset:
    """Every episode file in `folder`, folders in it included; each folder has a label layer and scores of its own.

    Used from several threads. version: grows with every change. problems: of files other than episodes, one line each.
    """

    def __init__(self, folder: Path, who: str) -> None:
        self.folder, self.who = folder, who
        root = folder.resolve()
        self.entries: list[Entry] = []
        for path in episode_files(folder):
            inside = Path(os.path.realpath(path)).is_relative_to(root)  # `resolve` raises for a link to itself
            self.entries.append(Entry(path, path.relative_to(folder).as_posix(), problem="" if inside else
                                      f"{path.name}: a link that leads out of the folder"))
        self.version, self.changes = 0, 0
        self.problems: list[str] = []
        self._lock = threading.RLock()
        self._layers: dict[Path, LabelLayer | None] = {}
        self._scores: dict[Path, dict[str, Score]] = {}
        for directory in sorted({entry.path.parent for entry in self.entries}):
            self._layers[directory] = self._or_problem(LabelLayer, directory)
            self._scores[directory] = self._or_problem(read_scores, directory) or {}

    def _or_problem(self, read: Any, directory: Path) -> Any:
        try:
            return read(directory)
        except DatasetError as error:
            self.problems.append(str(error))
            return None

    def load(self, stop: threading.Event) -> None:
        """Reads what the list shows of every file; then, behind all other work here, verifies every file's checksum.

        In a process beside this one: the page stays quick, and a file that crashes its reader costs only itself.
        Files that are as an earlier review left them are not read again.
        """
        kept, stamps = KeptFacts(self.folder), {entry.name: stamp(entry.path) for entry in self.entries}
        known: dict[str, Entry] = {}
        new = []
        for entry in self._usable():
            if (facts := kept.of(entry.name, stamps[entry.name])) is not None:
                self._list(entry, facts, known)
            else:
                new.append(entry)
        for entry, found in self._each(read_facts, new, stop, batch=BATCH):
            if found is None or found.problem:
                self._spoil(entry, found.problem if found else f"{entry.name}: {CRASHED}")
            else:
                self._list(entry, found, known)
        for entry, problem in self._each(damage, [entry for entry in self._usable() if not entry.facts.whole], stop,
                                         behind=True):
            if problem:
                self._spoil(entry, problem)
            elif problem is None:
                self._spoil(entry, f"{entry.name}: {CRASHED}")
            else:
                entry.facts = replace(entry.facts, whole=True)
        kept.keep((entry.name, now, entry.facts) for entry in self.entries
                  if entry.recording and not entry.problem and (now := stamps[entry.name]) is not None)

    def _usable(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.problem]

    def _list(self, entry: Entry, facts: Facts, known: dict[str, Entry]) -> None:
        """known: the first entry with a recording, by its id."""
        with self._lock:
            entry.facts = facts
            self.version += 1
        if (first := known.setdefault(facts.recording, entry)) is not entry:
            self._spoil(entry, f"{entry.name}: the same recording as {first.name}")

    @staticmethod
    def _each(work: Callable[[Path], T], entries: list[Entry], stop: threading.Event, behind: bool = False,
              batch: int = 1) -> Iterator[tuple[Entry, T | None]]:
        """Files with what `work` says of them, None when it crashed; see `in_workers`.

        A list that somebody waits for is read by two, beside a browser that wants every core for its own start.
        """
        paths = [entry.path for entry in entries]
        with contextlib.closing(in_workers(work, paths, 1 if behind else 2, behind, batch)) as results:
            for entry, (_, result) in zip(entries, results, strict=False):
                if stop.is_set():
                    return
                yield entry, result

    def _spoil(self, entry: Entry, problem: str) -> None:
        problem = printable(" ".join(problem.split()))
        log.warning("%s", problem)
        with self._lock:
            entry.problem = problem
            self.version += 1

    def poll(self) -> int:
        """The version, after a look at what other processes appended."""
        with self._lock:
            for layer in self._layers.values():
                try:
                    if layer is not None and layer.refresh():
                        self.version += 1
                except DatasetError as error:
                    if str(error) not in self.problems:
                        self.problems.append(str(error))
                        self.version += 1
            return self.version

    def row(self, index: int) -> dict[str, Any]:
        """What the list shows of an episode, ready for JSON."""
        with self._lock:
            entry = self.entries[index]
            row = {"index": index, "name": entry.name, "problem": entry.problem, "recording": entry.recording}
            layer, score = self._layers[entry.path.parent], self._scores[entry.path.parent].get(entry.recording)
            if not entry.recording:
                return row
            levels = self._levels(entry)
            return row | {
                "task": entry.facts.task, "steps": entry.steps, "score": score.score if score else None,
                "reward": round(float(levels["reward"].sum()), 3), "cost": round(float(levels["cost"].sum()), 3),
                "success": (bool((levels["reward"] > 0).any()) if _changed(levels, entry, "reward")
                            else entry.facts.success),
                "verdict": layer.verdict(entry.recording) if layer else "open",
                "note": layer.note(entry.recording) if layer else "",
                "labelled": any(_changed(levels, entry, kind) for kind in LEVELS)}

    def rows(self) -> list[dict[str, Any]]:
        return [self.row(index) for index in range(len(self.entries))]

    def labels(self, index: int) -> tuple[dict[str, np.ndarray], list[Label]]:
        """Reward and cost as labelled, and every label that the episode ever got. Empty for an unread file."""
        with self._lock:
            entry = self.entries[index]
            if not entry.recording:
                return {}, []
            layer = self._layers[entry.path.parent]
            return self._levels(entry), layer.history(entry.recording) if layer else []

    @property
    def listed(self) -> bool:
        """Whether every file was looked at."""
        return all(entry.recording or entry.problem for entry in self.entries)

    @property
    def scored(self) -> bool:
        """Whether a discriminator has scored any episode."""
        return any(self._scores.values())

    def score(self, index: int) -> Score | None:
        entry = self.entries[index]
        return self._scores[entry.path.parent].get(entry.recording)

    def tracks(self, index: int) -> Episode:
        """Raises `DatasetError` when the file cannot be read."""
        return read_tracks(self.entries[index].path)

    def mark(self, index: int, kind: str, intervals: Sequence[tuple[int, int]], value: float) -> None:
        """Sets reward or cost in intervals [first, end) of steps. Raises `DatasetError` for steps it has not."""
        steps = self.entries[index].steps
        for first, end in intervals:
            if not 0 <= first < end <= steps:
                raise DatasetError(f"steps: expected 0 <= first < end <= {steps}, got {[first, end]}")
        self._add(index, [{"kind": kind, "value": value, "steps": interval} for interval in intervals])

    def decide(self, index: int, verdict: str) -> None:
        """verdict: "accept", "reject" or "open"."""
        self._add(index, [{"kind": "verdict", "text": verdict}])

    def write_note(self, index: int, text: str) -> None:
        self._add(index, [{"kind": "note", "text": text}])

    def undo(self) -> int | None:
        """Takes back what this person did last, in whichever episode. Returns its index, None when there is nothing."""
        with self._lock:
            last = max(((label.when, index, label) for index, entry in enumerate(self.entries)
                        if (layer := self._layers[entry.path.parent]) is not None and entry.recording
                        for label in layer.active(entry.recording)
                        if label.who == self.who and label.source == "reviewer"),
                       key=lambda found: found[0], default=None)
            if last is not None:
                self._add(last[1], [{"kind": "undo", "text": last[2].id}])
            return last[1] if last else None

    def _levels(self, entry: Entry) -> dict[str, np.ndarray]:
        layer = self._layers[entry.path.parent]
        if layer is None:
            return entry.recorded
        try:
            return layer.levels(entry.recording, entry.recorded)
        except DatasetError as error:
            if not entry.problem:
                self._spoil(entry, str(error))
            return entry.recorded

    def _add(self, index: int, what: list[dict[str, Any]]) -> None:
        with self._lock:
            entry = self.entries[index]
            layer = self._layers[entry.path.parent]
            if layer is None or not entry.recording:
                raise DatasetError(f"{entry.name}: cannot be labelled; {entry.problem or '; '.join(self.problems)}")
            identity, when = uuid.uuid4().hex[:12], datetime.now(timezone.utc).isoformat()
            layer.add([Label(identity, entry.recording, entry.path.name, source="reviewer", who=self.who, when=when,
                             **fields) for fields in what])
            self.version += 1
            self.changes += 1


def _changed(levels: dict[str, np.ndarray], entry: Entry, kind: str) -> bool:
    return bool((levels[kind] != entry.recorded[kind]).any())
