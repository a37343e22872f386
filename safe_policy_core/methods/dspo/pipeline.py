"""The stages of DSPO in one folder, each resumable: discriminator, label, diffusion, generate, clone.

    discriminator/checkpoint, metrics.jsonl      signals.json      diffusion/checkpoint, metrics.jsonl
    generated.hdf5      checkpoint, metrics.jsonl (the policy)

Each of these says what it was made from (data, seed, the weights before it, its own settings), and a stage refuses
what is not of its run. Settings of later stages may change: what is before them stays good.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from safe_policy_core.checkpoint import RUN_FOLDER, find_checkpoint, read_manifest
from safe_policy_core.data.split_safe import Split, read_split
from safe_policy_core.errors import CheckpointError, DatasetError
from safe_policy_core.methods.dspo.config import ASKED_LATER, DspoConfig, check
from safe_policy_core.methods.dspo.diffusion_stage import DiffusionStage, desired_conditions
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
from safe_policy_core.methods.dspo.judgements import identities
from safe_policy_core.methods.dspo.learner import DspoLearner
from safe_policy_core.methods.dspo.trajectories import (
    CloningSource,
    DiffusionSource,
    Generated,
    Trajectories,
    fit_features,
    gather,
    joined,
    recalled,
)
from safe_policy_core.training.offline import train_offline

STAGES = ("discriminator", "label", "diffusion", "generate", "clone")
SIGNALS, GENERATED = "signals.json", "generated.hdf5"
_LABELLED = ("signals", "fold", "scale", "identities")
"""Of `SIGNALS`: z of every trajectory; which discriminator has not seen it; zero and unit of each discriminator; and by
what the trajectory is known (`identities`), for `scoring`."""
T = TypeVar("T")


@dataclass(frozen=True)
class DspoRun:
    """One run in the folder `out` on the split in the folder `data` (`split_safe`).

    resume: go on with the checkpoints in `out`. A stage that is done is not done again.
    """

    data: Path
    out: Path
    config: DspoConfig
    seed: int = 0
    device: str = "cpu"
    resume: bool = True
    checkpoint_every: int = 500
    command: str = ""
    progress: bool = True

    def run(self, stages: Sequence[str] = STAGES) -> dict[str, Any]:
        """The stages in their order; each returns what there is to say about it. Raises `UserError`s."""
        check(self.config)
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "discriminator": self._discriminator, "label": self._label, "diffusion": self._diffusion,
            "generate": self._generate, "clone": self._clone}
        if not self.config.diffusion.generated:
            stages = [stage for stage in stages if stage not in ("diffusion", "generate")]
        return {stage: steps[stage]() for stage in STAGES if stage in stages}

    @cached_property
    def trajectories(self) -> Trajectories:
        """D^S and D^U, as features of the discriminator in `out`, or, where there is none, fitted to this data.

        Raises `CheckpointError` for a discriminator of another seed or other data.
        """
        split, stage = self._split, self._first
        begun = self._begun("discriminator")
        if begun:
            stage.load(self._checkpoint("discriminator"))
        else:
            fit_features(stage.features, split.safe, split.unlabelled, self.seed)
        found = joined(gather(split.safe, stage.features, True), gather(split.unlabelled, stage.features, False))
        if begun:
            self._require("discriminator", data_hash=found.hash)
        return found

    @cached_property
    def _split(self) -> Split:
        return read_split(self.data)

    @cached_property
    def _first(self) -> DiscriminatorStage:
        return DiscriminatorStage(self._split.safe.specs, self.config, self.seed, self.device)

    def signals(self) -> np.ndarray:
        """(E,) safety signals that the stage "label" wrote. Raises `DatasetError` when they are not of this run."""
        try:
            content = json.loads((self.out / SIGNALS).read_text())
        except (OSError, ValueError) as error:
            raise DatasetError(f"{self.out / SIGNALS}: cannot be read ({error}); run the stage label first") from error
        mine = {"data_hash": self.trajectories.hash, "discriminator": self._hash("discriminator")}
        if any(content.get(name) != value for name, value in mine.items()) or not content.keys() >= set(_LABELLED):
            raise DatasetError(f"{self.out / SIGNALS}: of other data or another discriminator; run label again")
        return np.array(content["signals"])

    def generated(self) -> Generated | None:
        """D^G as the stage "generate" wrote it, if any is asked for. Raises `DatasetError` for that of another run."""
        if not self.config.diffusion.generated:
            return None
        generated, made_with = read_generated(self.out / GENERATED)
        for name, value in self._generating().items():
            if made_with.get(name) != value:
                raise DatasetError(f"{self.out / GENERATED}: {name}: expected {value}, it was made with "
                                   f"{made_with.get(name)}; run the stage generate again")
        return generated

    def _generating(self) -> dict[str, Any]:
        """What D^G depends on, ready for JSON."""
        asked = {name: getattr(self.config.diffusion, name) for name in ASKED_LATER}
        return {"discriminator": self._hash("discriminator"), "diffusion": self._hash("diffusion"),
                "seed": self.seed, **asked}

    def _discriminator(self) -> dict[str, Any]:
        trajectories, settings = self.trajectories, self.config.discriminator
        self._first.fit(trajectories)
        return self._train(self._first, self._first.source(trajectories), settings.steps, settings.batch,
                           settings.length, self.out / "discriminator")

    def _label(self) -> dict[str, Any]:
        trajectories, stage = self.trajectories, self._first
        self._require("discriminator", step=self.config.discriminator.steps)
        signals = self._kept(self.signals)
        if signals is None:
            stage.load(self._checkpoint("discriminator"))
            judgements, fold = stage.judgements(trajectories), trajectories.folds(self.config.discriminator.folds)
            scale = judgements.scale(fold, trajectories.safe)
            signals = np.array([signal for signal, _ in judgements.told(fold, scale)])
            labelled = signals.tolist(), fold.tolist(), scale.tolist(), identities(trajectories)
            _write_json(self.out / SIGNALS, {
                "data_hash": trajectories.hash, "discriminator": self._hash("discriminator"),
                "safe": trajectories.safe.tolist(), **dict(zip(_LABELLED, labelled, strict=True))})
        safe = trajectories.safe
        return {"signals": str(self.out / SIGNALS), "mean_safe": float(signals[safe].mean()),
                "mean_unlabelled": float(signals[~safe].mean()), "smallest_safe": float(signals[safe].min())}

    def _diffusion(self) -> dict[str, Any]:
        settings, source = self.config.diffusion, DiffusionSource(self.trajectories, self.signals())
        return self._train(self._with_features(DiffusionStage), source, settings.steps, settings.batch,
                           settings.horizon, self.out / "diffusion")

    def _generate(self) -> dict[str, Any]:
        trajectories, signals, settings = self.trajectories, self.signals(), self.config.diffusion
        stage = self._with_features(DiffusionStage)
        stage.load(self._checkpoint("diffusion"))
        self._require("diffusion", step=settings.steps, data_hash=DiffusionSource(trajectories, signals).data_hash())
        generated = self._kept(self.generated)
        if generated is None:
            generated = stage.generate(desired_conditions(trajectories, signals, settings.generated, self.seed,
                                                          settings.signal_quantile), self.seed)
            write_generated(self.out / GENERATED, generated, self._generating())
        return {"generated": str(self.out / GENERATED), "trajectories": len(generated.conditions),
                "steps": int(generated.mask.sum())}

    def _clone(self) -> dict[str, Any]:
        recorded, settings = self.trajectories.safe, self.config.cloning
        generated = self.generated()
        if settings.recalled is not None:
            recorded = recorded | recalled(self.trajectories, self.signals(), settings.recalled)
        source = CloningSource(self.trajectories, recorded, generated)
        learner = self._with_features(DspoLearner)
        learner.fit(self.trajectories)
        found = self._train(learner, source, settings.steps, settings.batch, 1, self.out)
        return {"recalled": int(recorded.sum() - self.trajectories.safe.sum()), **found}

    def _with_features(self, kind: type[Any]) -> Any:
        """A new stage with the features of this run."""
        stage = kind(self.trajectories.specs, self.config, self.seed, self.device)
        stage.features.load_state_dict(self._first.features.state_dict())
        return stage

    def _train(self, stage: Any, source: Any, steps: int, batch: int, length: int, folder: Path) -> dict[str, Any]:
        """`train_offline` for a stage, which need not have a policy, and its own source of batches."""
        checkpoint = folder / RUN_FOLDER
        if checkpoint.exists() and not self.resume:
            raise CheckpointError(f"out: {checkpoint} exists; resume it with --resume, or name another folder")
        metrics = train_offline(stage, source, steps, batch, length, self.seed, checkpoint, folder / "metrics.jsonl",
                                self.resume, self.progress, checkpoint_every=self.checkpoint_every,
                                command=self.command)
        return {"checkpoint": str(checkpoint), "steps": steps, "metrics": metrics}

    def _kept(self, read: Callable[[], T]) -> T | None:
        """What a stage wrote already; None where it is to be done again, or not of this run."""
        if self.resume:
            with contextlib.suppress(DatasetError):
                return read()
        return None

    def _checkpoint(self, stage: str) -> Path:
        return self.out / stage / RUN_FOLDER

    def _begun(self, stage: str) -> bool:
        """Whether there is a checkpoint, or what a crash left of one."""
        try:
            find_checkpoint(self._checkpoint(stage))
        except CheckpointError:
            return False
        return True

    def _require(self, stage: str, **fields: Any) -> None:
        """Raises `CheckpointError` when a stage's checkpoint is of another seed or has other `fields` in its manifest.

        step: a stage that was interrupted has fewer.
        """
        if not self._begun(stage):
            raise CheckpointError(f"{self._checkpoint(stage)}: no checkpoint; run the stage {stage} first")
        manifest = read_manifest(self._checkpoint(stage))
        for name, value in {"seed": self.seed, **fields}.items():
            if manifest[name] != value:  # type: ignore[literal-required]
                raise CheckpointError(f"{self._checkpoint(stage)}: {name}: expected {value!r}, the checkpoint has "
                                      f"{manifest[name]!r}")  # type: ignore[literal-required]

    def _hash(self, stage: str) -> str:
        return str(read_manifest(self._checkpoint(stage))["sha256"])


def write_generated(path: Path, generated: Generated, made_with: dict[str, Any]) -> None:
    """D^G as HDF5, atomically. made_with: what it depends on, ready for JSON."""
    partial = path.with_name(f".{path.name}.tmp")
    with h5py.File(partial, "w") as file:
        for name, array in vars(generated).items():
            file.create_dataset(name, data=array, compression="gzip")
        file.attrs["made_with"] = json.dumps(made_with)
    partial.replace(path)


def read_generated(path: Path) -> tuple[Generated, dict[str, Any]]:
    """Inverse of `write_generated`. Raises `DatasetError`.

    Older files do not say what they were made with.
    """
    try:
        with h5py.File(path) as file:
            return Generated(*(file[name][()] for name in ("states", "actions", "mask", "conditions"))), \
                json.loads(file.attrs.get("made_with", "{}"))
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); run the stage generate first") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(json.dumps(content) + "\n")
    partial.replace(path)
