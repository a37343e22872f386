"""Offline training: updates on recorded episodes, with a log, checkpoints and exact resume."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from safe_policy_core.checkpoint import MANIFEST, annotate_checkpoint, find_checkpoint, read_manifest, replace_directory
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Learner
from safe_policy_core.training.events import Events
from safe_policy_core.training.metrics import Means, append_row, keep_rows_until
from safe_policy_core.training.preparation import with_virtual_obstacles
from safe_policy_core.training.steps import OFFLINE, Precision, selected, source_of, take_step


def train_offline(learner: Learner, data: EpisodeStore | DsrlDataset, steps: int, batch: int, length: int,
                  seed: int = 0, checkpoint_dir: Path | None = None, log: Path | None = None, resume: bool = False,
                  progress: bool = True, *, checkpoint_every: int = 500, log_every: int = 20, command: str = "",
                  precision: Precision = "float32") -> dict[str, float]:
    """Takes updates until `steps` of them are done, and returns the mean metrics of the last window.

    batch, length: sequences per update and rows per sequence. log: JSONL, means over `log_every`
    updates, with TensorBoard files beside it. checkpoint_dir: a folder replaced as a whole every
    `checkpoint_every` updates and at the end. resume: continues from `checkpoint_dir` when it holds a
    checkpoint; on a CPU the numbers are those of an uninterrupted run. progress: a bar on stderr.
    precision: as for `take_step`.

    Raises `DatasetError` for unfit episodes, `CheckpointError` for a checkpoint of another run,
    and `FloatingPointError` when the loss is no longer finite.
    """
    chosen = (source_of(data, learner) if isinstance(data, DsrlDataset)
              else with_virtual_obstacles(selected(data, learner), learner))
    identity: dict[str, Any] = {"seed": seed, "batch": batch, "length": length, "data_hash": chosen.data_hash(),
                                "precision": precision}
    begin = _resume(learner, checkpoint_dir, identity) if resume and checkpoint_dir is not None else 0
    means, last = Means(), {}
    bar = tqdm(total=steps, initial=min(begin, steps), desc="pretrain", unit="step", disable=not progress)
    with bar, closing(_RunLog(log, begin)) as rows:
        for step in range(begin + 1, steps + 1):
            means.add(take_step(learner, chosen, batch, length, seed, OFFLINE, step, precision))
            bar.update()
            save = checkpoint_dir is not None and (step % checkpoint_every == 0 or step == steps)
            # A checkpoint also ends a window, so that a resumed run logs the same rows.
            if save or step % log_every == 0 or step == steps:
                last = means.take()
                bar.set_postfix({name: f"{value:.3g}" for name, value in list(last.items())[:4]}, refresh=False)
                rows.add(step, last)
            if save and checkpoint_dir is not None:
                save_training(learner, checkpoint_dir, command, identity["data_hash"],
                              {"offline": identity | {"step": step}})
    return last


class _RunLog:
    """The JSON lines and the event files of a run that goes on after `begin`; neither without a path."""

    def __init__(self, path: Path | None, begin: int) -> None:
        self._path, self._events = path, None
        if path is not None:
            keep_rows_until(path, begin)
            self._events = Events(path, begin)

    def add(self, step: int, metrics: dict[str, float]) -> None:
        if self._path is not None and self._events is not None:
            append_row(self._path, {"step": step, **metrics})
            self._events.add(step, metrics, "pretrain")

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def save_training(learner: Learner, directory: Path, command: str, data_hash: str, extra: dict[str, Any]) -> None:
    """Saves the learner with what the trainer knows in its manifest, in one atomic replacement of `directory`."""
    staging = directory.with_name(f".{directory.name}.{os.getpid()}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        learner.save(staging)
        annotate_checkpoint(staging, command=command, data_hash=data_hash, extra=extra)
        replace_directory(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _resume(learner: Learner, directory: Path, identity: dict[str, Any]) -> int:
    """Restores the learner and returns how many steps it has done; 0 when there is no checkpoint yet."""
    try:
        folder = find_checkpoint(directory)
    except CheckpointError:
        if directory.exists() and any(directory.iterdir()):
            raise
        return 0
    run = read_manifest(folder)["extra"].get("offline")
    if not isinstance(run, dict):
        raise CheckpointError(f"{folder}: {MANIFEST}: extra offline: missing; it was not made by offline training, "
                              "so it cannot be resumed (start from its weights instead)")
    run.setdefault("precision", "float32")  # older checkpoints do not say
    for name, value in identity.items():
        if run.get(name) != value:
            raise CheckpointError(f"{folder}: {name}: the run to resume has {run.get(name)!r}, this one {value!r}")
    learner.load(folder)
    return int(run["step"])
