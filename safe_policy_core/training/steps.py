"""One gradient step whose every random draw is fixed by (seed, stream, step)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch

from safe_policy_core.data.episodes import EpisodeStore, EpisodeSummary
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Learner

OFFLINE, ONLINE = 0, 1
"""Streams: offline and online steps of the same number draw different numbers."""


@runtime_checkable
class SelectsEpisodes(Protocol):
    """A learner that wants only some of the episodes (BC-Safe: those without cost)."""

    def select_episode(self, summary: EpisodeSummary) -> bool: ...


def selected(store: EpisodeStore, learner: Learner) -> EpisodeStore:
    """The episodes the learner wants. Raises `DatasetError` when specs differ or nothing is left."""
    if difference := learner.specs.difference(store.specs):
        raise DatasetError(f"episodes: made for other specs than the learner: {difference} (learner against episodes)")
    if not isinstance(learner, SelectsEpisodes):
        return store
    chosen = store.select(learner.select_episode)
    if not len(chosen):
        raise DatasetError(f"episodes: none of {len(store)} passes the learner's selection; add demonstrations that "
                           "are safe and successful, or change the method's selection")
    return chosen


def take_step(learner: Learner, store: EpisodeStore, batch: int, length: int, seed: int, stream: int, step: int
              ) -> dict[str, float]:
    """Update number `step`. Seeding every step makes a resumed run draw what an uninterrupted one would have drawn."""
    rng = np.random.default_rng((seed, stream, step))
    torch.manual_seed(int(rng.integers(2**63)))
    try:
        return learner.update(store.sample(batch, length, rng))
    except FloatingPointError as error:
        raise FloatingPointError(f"step {step}: {error}") from error
