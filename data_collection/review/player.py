"""What the page's player draws of an episode: tracks as JSON, and where its pictures are."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_collection.review.dataset import ReviewDataset

COLUMNS, ROWS = 8, 4
"""A sheet of pictures holds 32 frames, as many as a chunk of the file."""


class Player:
    """Episodes of `dataset` by their index; suggestions are kept, because making them reads every picture."""

    def __init__(self, dataset: ReviewDataset) -> None:
        self._dataset = dataset
        self._suggestions: dict[str, list[tuple[int, int]]] = {}

    def tracks(self, index: int, near: list[int]) -> dict[str, Any]:
        """All but reward and cost as labelled, and the suggestion. near: episodes whose pictures are fetched ahead.

        Raises `DatasetError` when the file cannot be read.
        """
        episode, entry, score = self._dataset.tracks(index), self._dataset.entries[index], self._dataset.score(index)
        limits = episode.metadata.get("limits") or {}
        return {
            "key": index, "frames": len(episode) + 1, "columns": COLUMNS, "rows": ROWS, "sheets": self._sheets(index),
            "neighbours": [url for other in near for url in self._sheets(other)],
            "time": rounded((episode.time_ns - episode.time_ns[0]) / 1e9),
            "pose": rounded(episode.observations.get("pose")), "executed": rounded(episode.executed_action),
            "policy": rounded(episode.policy_action), "human": rounded(episode.human_action),
            "wished": rounded(np.where(episode.intervention[:, None], episode.human_action, episode.policy_action)),
            "intervention": episode.intervention.tolist(), "reasons": episode.filter_reason,
            "recorded_reward": rounded(entry.recorded["reward"]), "recorded_cost": rounded(entry.recorded["cost"]),
            "attention": list(score.attention) if score and len(score.attention) == len(episode) else [],
            "workspace": [limits["workspace_low"], limits["workspace_high"]] if "workspace_high" in limits else None}

    def suggestion(self, index: int, first_contact: int | None = None) -> list[tuple[int, int]]:
        """Intervals of cost by the paper's rule, see `suggested_cost`. Raises `DatasetError` for an unreadable file."""
        from data_collection.labels import suggested_cost  # reads recordings, whose libraries take their time to load

        entry = self._dataset.entries[index]
        if first_contact is not None:
            return suggested_cost(entry.path, self._dataset.tracks(index), first_contact)
        if entry.recording not in self._suggestions:
            self._suggestions[entry.recording] = suggested_cost(entry.path, self._dataset.tracks(index))
        return self._suggestions[entry.recording]

    def _sheets(self, index: int) -> list[str]:
        entry = self._dataset.entries[index]
        if not entry.recording or entry.problem:
            return []
        count = -(-(entry.steps + 1) // (COLUMNS * ROWS))
        return [f"/picture/{index}/{entry.recording}/{number}" for number in range(count)]


def rounded(values: np.ndarray | None) -> list[Any]:
    """For JSON; [] for what an episode does not have."""
    return [] if values is None else np.round(values.astype(float), 4).tolist()
