"""Labels as a layer over recorded episodes: `labels.jsonl` beside them, append-only, with who, when and from where.

Episode files keep what was recorded. Training reads them through `LabelLayers`, which puts the
layer's reward and cost over the recorded ones and leaves rejected episodes out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.data.episode_file import Episode
from safe_policy_core.data.json_lines import append_lines, is_number, read_lines
from safe_policy_core.errors import DatasetError

LABELS_FILE = "labels.jsonl"
LEVELS = ("reward", "cost")
VERDICTS = ("accept", "reject", "open")
KINDS = (*LEVELS, "verdict", "note", "undo")
IDENTITY = ("executed_action", "policy_action", "human_action", "time_ns")
"""Fields of an episode that `recording_id` hashes."""


@dataclass(frozen=True)
class Label:
    """One line of the layer; the words are those of the recorded `LabelEvent` message.

    id: of what the person did; labels made together share it and are undone together.
    recording: `recording_id` of the episode. name: its file when it was labelled, for people.
    kind: one of `KINDS`. value, steps: level of reward or cost in the steps first <= step < end.
    text: the verdict, the note, or the id of the labels that are undone.
    source: "reviewer", "contact_sensor", "discriminator", ... who: a person's name, "" for a sensor.
    when: ISO 8601, UTC.
    """

    id: str
    recording: str
    name: str
    kind: str
    source: str
    who: str
    when: str
    value: float = 0.0
    steps: tuple[int, int] | None = None
    text: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "recording", "name", "kind", "source", "who", "when", "text"):
            if not isinstance(getattr(self, name), str):
                raise DatasetError(f"label {name}: expected text, got {getattr(self, name)!r}")
        if self.kind not in KINDS:
            raise DatasetError(f"label kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "verdict" and self.text not in VERDICTS:
            raise DatasetError(f"label text: expected a verdict of {', '.join(VERDICTS)}, got {self.text!r}")
        if not is_number(self.value):
            raise DatasetError(f"label value: expected a finite number, got {self.value!r}")
        if self.kind == "cost" and self.value < 0:
            raise DatasetError(f"label value: expected a cost >= 0, got {self.value}")
        if self.kind not in LEVELS and self.steps is not None:
            raise DatasetError(f"label steps: expected none for kind {self.kind}, got {self.steps!r}")
        if self.kind in LEVELS:
            ok = isinstance(self.steps, tuple) and len(self.steps) == 2 and all(type(s) is int for s in self.steps)
            if not ok or not 0 <= self.steps[0] < self.steps[1]:  # type: ignore[index]
                raise DatasetError(f"label steps: expected 0 <= first < end, got {self.steps!r}")

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Label:
        """Inverse of `to_json`. Raises `DatasetError` naming the field; unknown fields are refused."""
        names = {field.name for field in fields(cls)}
        if unknown := row.keys() - names:
            raise DatasetError(f"label {min(unknown)}: unknown field, expected {', '.join(sorted(names))}")
        steps = row.get("steps")
        try:
            return cls(**row | {"steps": tuple(steps) if isinstance(steps, list) else steps})
        except TypeError as error:
            raise DatasetError(f"label: {error}") from error

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def recording_id(episode: Episode) -> str:
    """What an episode is known by, hex: a hash of its actions and times.

    Unlike `content_hash` it stays the same when the file is renamed, labelled, or cut again from its raw log with
    another crop, so labels stay with what a person saw.
    """
    return identity_hash({name: getattr(episode, name) for name in IDENTITY})


def identity_hash(fields: Mapping[str, np.ndarray]) -> str:
    """`recording_id` of an episode of which no more than the fields `IDENTITY` are at hand."""
    digest = hashlib.sha256()
    for name in IDENTITY:
        array = fields[name]
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


class LabelLayer:
    """The labels of the episodes in one folder. Picks up what other processes append when `refresh` is called."""

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / LABELS_FILE
        self._offset = 0
        self._labels: dict[str, list[Label]] = {}
        self._undone: set[str] = set()
        self.refresh()

    def refresh(self) -> bool:
        """Reads what was appended; whether there was anything. Raises `DatasetError` naming file and field."""
        rows, offset = read_lines(self.path, self._offset)
        for row in rows:
            try:
                label = Label.from_json(row)
            except DatasetError as error:
                raise DatasetError(f"{self.path}: {error}") from error
            self._labels.setdefault(label.recording, []).append(label)
            if label.kind == "undo":
                self._undone.add(label.text)
        self._offset = offset
        return bool(rows)

    def add(self, labels: Iterable[Label]) -> None:
        """Appends labels; they are on disk when this returns."""
        append_lines(self.path, [label.to_json() for label in labels])
        self.refresh()

    def history(self, recording: str) -> list[Label]:
        """Every label that an episode ever got, in order."""
        return list(self._labels.get(recording, ()))

    def active(self, recording: str) -> list[Label]:
        """The labels that hold, in order: neither undone nor undoing."""
        return [label for label in self._labels.get(recording, ())
                if label.kind != "undo" and label.id not in self._undone]

    def verdict(self, recording: str) -> str:
        """One of `VERDICTS`; "open" before anybody decided."""
        return next((label.text for label in reversed(self.active(recording)) if label.kind == "verdict"), "open")

    def note(self, recording: str) -> str:
        return next((label.text for label in reversed(self.active(recording)) if label.kind == "note"), "")

    def levels(self, recording: str, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Reward and cost as labelled, (T,) each. Raises `DatasetError` for a label on steps that are not there."""
        tracks = {kind: recorded[kind].copy() for kind in LEVELS}
        for label in self.active(recording):
            if label.steps is None:
                continue
            if label.steps[1] > len(tracks[label.kind]):
                raise DatasetError(f"{self.path}: label {label.id} of {label.name}: steps {list(label.steps)}, "
                                   f"expected at most the episode's {len(tracks[label.kind])}")
            tracks[label.kind][slice(*label.steps)] = label.value
        return tracks

    def apply(self, episode: Episode) -> Episode:
        """The episode as labelled; `metadata["labels"]` tells by whom. Raises `DatasetError` as `levels` does."""
        recording = recording_id(episode)
        labels = [label for label in self.active(recording) if label.steps is not None]
        if not labels:
            return episode
        tracks = self.levels(recording, {kind: getattr(episode, kind) for kind in LEVELS})
        people = sorted({label.who for label in labels})
        metadata = {**episode.metadata, "labels": {"count": len(labels), "who": people}}
        # What the recorder concluded from its own labels follows the new ones.
        if "success" in metadata and any(label.kind == "reward" for label in labels):
            metadata["success"] = bool((tracks["reward"] > 0).any())
        if "violation" in metadata and any(label.kind == "cost" for label in labels):
            metadata["violation"] = bool((tracks["cost"] > 0).any())
        return replace(episode, reward=tracks["reward"], cost=tracks["cost"], metadata=metadata)


class LabelLayers:
    """The layers of the folders that episodes come from, each read once."""

    def __init__(self) -> None:
        self._layers: dict[Path, LabelLayer] = {}

    def beside(self, path: Path) -> LabelLayer:
        """The layer of the folder that the episode file `path` lies in."""
        if path.parent not in self._layers:
            self._layers[path.parent] = LabelLayer(path.parent)
        return self._layers[path.parent]

    def labelled(self, path: Path, episode: Episode) -> Episode | None:
        """The episode read from `path` with its labels, or None when a reviewer rejected it."""
        layer = self.beside(path)
        return None if layer.verdict(recording_id(episode)) == "reject" else layer.apply(episode)
