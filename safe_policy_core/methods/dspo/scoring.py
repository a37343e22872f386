"""Scores of recorded episodes for a reviewer, and how good a discriminator is by the hidden costs (Table 2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.data.episodes import EpisodeStore, episode_files, read_episode
from safe_policy_core.data.labels import recording_id
from safe_policy_core.data.scores import Score, write_scores
from safe_policy_core.errors import DatasetError, printable
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
from safe_policy_core.methods.dspo.judgements import ALL, identities
from safe_policy_core.methods.dspo.pipeline import SIGNALS
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


@dataclass(frozen=True)
class Memory:
    """What a run knows of its trajectories. fold: by `identities`, the discriminator that has not seen it, or `ALL`.

    scale: (M, 2) zero and unit of each discriminator's logits, see `Judgements.scale`.
    """

    fold: dict[str, int]
    scale: np.ndarray

    @classmethod
    def of(cls, known: Sequence[str], fold: Sequence[int], scale: np.ndarray) -> Memory:
        """Of a trajectory that was recorded twice, each discriminator may have seen one: all judge it."""
        folds: dict[str, int] = {}
        for identity, number in zip(known, fold, strict=True):
            folds[identity] = number if folds.get(identity, number) == number else ALL
        return cls(folds, scale)


@dataclass(frozen=True)
class Scored:
    """scores: of every episode that could be judged. known: how many of them were trained on. skipped: why others
    were not judged, one line a file."""

    scores: list[Score]
    known: int
    skipped: list[str]


def read_memory(checkpoint: Path) -> Memory:
    """From what the stage label wrote beside the discriminator. Raises `DatasetError` when it is not there."""
    folders = checkpoint.resolve().parents[:2]
    path = next((folder / SIGNALS for folder in folders if (folder / SIGNALS).is_file()), folders[0] / SIGNALS)
    try:
        content = json.loads(path.read_text())
        of = content["discriminator"]
        memory = Memory.of(content["identities"], content["fold"], np.array(content["scale"], float))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error!r}); which episodes the discriminator has seen stands "
                           "there, run `safe-policy dspo label` first") from error
    if of != read_manifest(checkpoint)["sha256"]:
        raise DatasetError(f"{path}: of another discriminator; run `safe-policy dspo label` again")
    return memory


def score_episodes(checkpoint: Path, folder: Path, device: str = "cpu") -> Scored:
    """Scores the episode files in `folder` and the folders in it, and appends to the scores beside each.

    An episode that the discriminators were trained on is judged by the one that has not seen it, others by all of them
    together, all on the scale of the run's own signals. Files that are damaged or of other specs are skipped.
    Raises `CheckpointError`, and `DatasetError` when no file is left or the stage label was not run.
    """
    stage, memory = DiscriminatorStage.restored(checkpoint, device), read_memory(checkpoint)
    store, known, skipped = EpisodeStore(), [], []
    for path in episode_files(folder):
        try:
            episode = read_episode(path)
            if difference := stage.specs.difference(episode.specs):
                raise DatasetError(f"other specs than the discriminator's: {difference}")
            store.add(episode)
        except DatasetError as error:
            message = str(error)
            skipped.append(printable(message if message.startswith(str(path)) else f"{path}: {message}"))
        else:
            known.append((recording_id(episode), path))
    if not known:
        raise DatasetError(f"{folder}: none of {len(skipped)} files can be scored: {skipped[0]}")
    trajectories = gather(store, stage.features, False)
    identity = identities(trajectories)
    fold = np.array([memory.fold.get(name, ALL) for name in identity], np.int64)
    judged = stage.judgements(trajectories).told(fold, memory.scale)
    scores = [Score(recording, path.name, "dspo", signal, tuple(map(float, attention)) if stage.attends else ())
              for (recording, path), (signal, attention) in zip(known, judged, strict=True)]
    for place in dict.fromkeys(path.parent for _, path in known):
        write_scores(place, [score for score, (_, path) in zip(scores, known, strict=True) if path.parent == place])
    return Scored(scores, sum(name in memory.fold for name in identity), skipped)
