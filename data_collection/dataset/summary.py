"""What a dataset's episodes are, without their pictures: the rows that tables, plots and selections are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_collection.dataset.files import dataset_files, refusal
from safe_policy_core.data.episode_file import Episode, read_tracks
from safe_policy_core.data.labels import LabelLayers, recording_id
from safe_policy_core.errors import DatasetError, printable

OUTCOMES = ("safe_reach", "safe_no_reach", "contact_reach", "contact_no_reach")
"""FOSP, appendix D.1: whether an obstacle was touched, and whether the target was reached."""


@dataclass(frozen=True, eq=False)
class Row:
    """One episode as labelled. path: its file. recording: `recording_id`. episode: tracks without pictures.

    verdict: a reviewer's, "open" without one.
    """

    path: Path
    recording: str
    episode: Episode
    verdict: str

    @property
    def reward(self) -> float:
        return float(self.episode.reward.sum())

    @property
    def cost(self) -> float:
        return float(self.episode.cost.sum())

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""
        return f"{'contact' if self.cost > 0 else 'safe'}_{'reach' if self.episode.success else 'no_reach'}"

    @property
    def seconds(self) -> float:
        return float(self.episode.time_ns[-1] - self.episode.time_ns[0]) / 1e9

    def text(self, field: str) -> str:
        """A metadata field for grouping, "unknown" where it was not recorded."""
        return printable(self.episode.metadata.get(field) or "unknown")


def read_rows(folder: Path) -> tuple[list[Row], dict[Path, str]]:
    """The episodes of a folder with their labels, and what is wrong with the files that cannot be used."""
    layers, rows, bad = LabelLayers(), [], {}
    for path in dataset_files(folder):
        try:
            if reason := refusal(path):
                raise DatasetError(reason)
            episode = read_tracks(path)
            recording, layer = recording_id(episode), layers.beside(path)
            rows.append(Row(path, recording, layer.apply(episode), layer.verdict(recording)))
        except DatasetError as error:
            bad[path] = printable(str(error).removeprefix(f"{path}: "))
    if not rows and not bad:
        raise DatasetError(f"{folder}: no episode files (*.h5) in this folder; collect or convert some first")
    return rows, bad


def outcome_counts(rows: Iterable[Row]) -> dict[str, int]:
    counts = Counter(row.outcome for row in rows)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def summary(rows: list[Row]) -> dict[str, Any]:
    """Totals over a dataset, JSON-ready. Times in seconds, size in bytes."""
    lengths = [len(row.episode) for row in rows] or [0]
    steps = sum(lengths)
    return {
        "episodes": len(rows), "steps": steps, "seconds": round(sum(row.seconds for row in rows), 3),
        "bytes": sum(row.path.stat().st_size for row in rows),
        "steps_per_episode": {"least": min(lengths), "median": float(np.median(lengths)), "most": max(lengths)},
        "outcomes": outcome_counts(rows),
        "steps_with_cost": int(sum((row.episode.cost > 0).sum() for row in rows)),
        "steps_with_intervention": int(sum(row.episode.intervention.sum() for row in rows)),
        "steps_changed_by_limits": sum(bool(reason) for row in rows for reason in row.episode.filter_reason),
        "ends": {"terminated": int(sum(row.episode.terminated[-1] for row in rows)),
                 "truncated": int(sum(row.episode.truncated[-1] for row in rows))},
        "messages_dropped": int(sum(sum(_counts(row.episode.metadata.get("dropped"))) for row in rows)),
        "verdicts": dict(Counter(row.verdict for row in rows)),
        **{f"{field}s": dict(Counter(row.text(field) for row in rows).most_common())
           for field in ("task", "operator", "source")},
    }


def _counts(dropped: Any) -> list[int]:
    return [n for n in dropped.values() if isinstance(n, int)] if isinstance(dropped, dict) else []
