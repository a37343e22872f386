"""Scores of recorded episodes for a reviewer, and how good a discriminator is by the hidden costs (Table 2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from safe_policy_core.data.episodes import EpisodeStore, read_episode
from safe_policy_core.data.labels import recording_id
from safe_policy_core.data.scores import Score, write_scores
from safe_policy_core.errors import DatasetError
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
from safe_policy_core.methods.dspo.trajectories import gather


@dataclass(frozen=True)
class DiscriminatorQuality:
    """recall: share of the truly safe that are told so. accuracy: share told right. f1: of "safe".

    pearson: correlation of the signal with being safe (0 where either does not vary).
    """

    recall: float
    accuracy: float
    f1: float
    pearson: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def discriminator_quality(signals: np.ndarray, safe: np.ndarray, threshold: float = 0.5) -> DiscriminatorQuality:
    """signals: (E,) in [0, 1]. safe: (E,) bool, the truth. Ratios of nothing are 0. Raises `ValueError` when empty.

    threshold: signal from which a trajectory counts as safe. The paper does not say which; for a discriminator that
    was taught D^S against D^U, the smallest signal of D^S, from which on D^G is made too (appendix D.1).
    """
    signals, safe = np.asarray(signals, float), np.asarray(safe, bool)
    if signals.shape != safe.shape or not signals.size:
        raise ValueError(f"signals: expected as many as truths and at least one, got {signals.shape} and {safe.shape}")
    told = signals >= threshold
    hits = float((told & safe).sum())
    recall, found = hits / max(int(safe.sum()), 1), hits / max(int(told.sum()), 1)
    varies = np.ptp(signals) > 0 and safe.any() and not safe.all()
    return DiscriminatorQuality(recall, float((told == safe).mean()), 2 * recall * found / max(recall + found, 1e-12),
                                float(np.corrcoef(signals, safe)[0, 1]) if varies else 0.0)


def score_episodes(checkpoint: Path, folder: Path, device: str = "cpu") -> list[Score]:
    """Scores the episode files in `folder` with the discriminator of `checkpoint`, and appends to the scores there.

    Raises `CheckpointError`, and `DatasetError` for episodes that cannot be read or of other specs.
    """
    stage = DiscriminatorStage.restored(checkpoint, device)
    paths = sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))
    if not paths:
        raise DatasetError(f"{folder}: no episode files (*.h5) in this directory")
    store, known = EpisodeStore(), []
    for path in paths:
        episode = read_episode(path)
        store.add(episode)
        known.append((recording_id(episode), path.name))
    if difference := stage.specs.difference(store.specs):
        raise DatasetError(f"{folder}: other specs than the discriminator's: {difference}")
    scores = [Score(recording, name, "dspo", signal, tuple(float(weight) for weight in attention))
              for (recording, name), (signal, attention) in
              zip(known, stage.judge(gather(store, stage.features, False)), strict=True)]
    write_scores(folder, scores)
    return scores
