"""One gradient step whose every random draw is fixed by (seed, stream, step)."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.episodes import EpisodeStore, EpisodeSummary
from safe_policy_core.data.sources import DataSource
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Learner, Specs

Precision = Literal["float32", "bfloat16"]
OFFLINE, ONLINE = 0, 1
"""Streams: offline and online steps of the same number draw different numbers."""


@runtime_checkable
class SelectsEpisodes(Protocol):
    """A learner that wants only some of the episodes (BC-Safe: those without cost)."""

    def select_episode(self, summary: EpisodeSummary) -> bool: ...


@runtime_checkable
class LearnsFromDsrl(Protocol):
    """A learner for datasets of vector observations. It says how it samples them, once before the first step.

    After a resume it is asked again; what it measured on the data (means, scales) came with the checkpoint then.
    """

    def data_source(self, dataset: DsrlDataset) -> DataSource: ...


def selected(store: EpisodeStore, learner: Learner) -> EpisodeStore:
    """The episodes the learner wants. Raises `DatasetError` when specs differ or nothing is left."""
    _require_specs(learner, store.specs)
    if not isinstance(learner, SelectsEpisodes):
        return store
    chosen = store.select(learner.select_episode)
    if not len(chosen):
        raise DatasetError(f"episodes: none of {len(store)} passes the learner's selection; add demonstrations that "
                           "are safe and successful, or change the method's selection")
    return chosen


def source_of(dataset: DsrlDataset, learner: Learner) -> DataSource:
    """A DSRL dataset as the learner samples it. Raises `DatasetError` for other specs or a method without such data."""
    _require_specs(learner, dataset.specs)
    if not isinstance(learner, LearnsFromDsrl):
        raise DatasetError(f"{dataset.name}: this method learns from episode files (*.h5), not from a DSRL file")
    return learner.data_source(dataset)


def _require_specs(learner: Learner, specs: Specs) -> None:
    if difference := learner.specs.difference(specs):
        raise DatasetError(f"episodes: made for other specs than the learner: {difference} (learner against episodes)")


def take_step(learner: Learner, store: DataSource, batch: int, length: int, seed: int, stream: int, step: int,
              precision: Precision = "float32") -> dict[str, float]:
    """Update number `step`. Seeding every step makes a resumed run draw what an uninterrupted one would have drawn.

    precision: "bfloat16" multiplies matrices in it (autocast); weights, states that last and losses stay in float32.
    """
    rng = np.random.default_rng((seed, stream, step))
    torch.manual_seed(int(rng.integers(2**63)))
    device = torch.device(getattr(learner, "device", "cpu")).type
    try:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return learner.update(store.sample(batch, length, rng))
    except FloatingPointError as error:
        raise FloatingPointError(f"step {step}: {error}") from error
