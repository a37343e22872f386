"""The stages of DSPO in one folder, each resumable: discriminator, label, diffusion, generate, clone.

    discriminator/checkpoint, metrics.jsonl      signals.json      diffusion/checkpoint, metrics.jsonl
    generated.hdf5      checkpoint, metrics.jsonl (the policy)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from safe_policy_core.checkpoint import RUN_FOLDER, read_manifest
from safe_policy_core.data.split_safe import Split, read_split
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.diffusion_stage import DiffusionStage, desired_conditions
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
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
        quantile = self.config.cloning.recalled
        if quantile is not None and not 0 <= quantile <= 1:
            raise ConfigurationError(f"cloning.recalled: expected a number from 0 to 1, or none, got {quantile}")
        if self.config.diffusion.generated < 0:
            raise ConfigurationError(f"diffusion.generated: expected a count, got {self.config.diffusion.generated}")
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "discriminator": self._discriminator, "label": self._label, "diffusion": self._diffusion,
            "generate": self._generate, "clone": self._clone}
        if not self.config.diffusion.generated:
            stages = [stage for stage in stages if stage not in ("diffusion", "generate")]
        return {stage: steps[stage]() for stage in STAGES if stage in stages}

    @cached_property
    def trajectories(self) -> Trajectories:
        """D^S and D^U, as features whose ranges are those of this data."""
        split, stage = self._split, self._first
        fit_features(stage.features, split.safe, split.unlabelled, self.seed)
        return joined(gather(split.safe, stage.features, True), gather(split.unlabelled, stage.features, False))

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
        if content["data_hash"] != self.trajectories.hash or content["discriminator"] != self._hash("discriminator"):
            raise DatasetError(f"{self.out / SIGNALS}: of other data or another discriminator; run label again")
        return np.array(content["signals"])

    def generated(self) -> Generated | None:
        """D^G as the stage "generate" wrote it, if any is asked for. Raises `DatasetError` for that of another run."""
        if not self.config.diffusion.generated:
            return None
        generated, model = read_generated(self.out / GENERATED)
        if model != self._hash("diffusion"):
            raise DatasetError(f"{self.out / GENERATED}: of another diffusion; run the stage generate again")
        return generated

    def _discriminator(self) -> dict[str, Any]:
        trajectories, settings = self.trajectories, self.config.discriminator
        self._first.fit(trajectories)
        return self._train(self._first, self._first.source(trajectories), settings.steps, settings.batch,
                           settings.length, self.out / "discriminator")

    def _label(self) -> dict[str, Any]:
        trajectories, stage = self.trajectories, self._first
        stage.load(self.out / "discriminator" / RUN_FOLDER)
        signals = np.array([signal for signal, _ in stage.judge(trajectories, held_out=True)])
        _write_json(self.out / SIGNALS, {"data_hash": trajectories.hash, "discriminator": self._hash("discriminator"),
                                         "safe": trajectories.safe.tolist(), "signals": signals.tolist()})
        safe = trajectories.safe
        return {"signals": str(self.out / SIGNALS), "mean_safe": float(signals[safe].mean()),
                "mean_unlabelled": float(signals[~safe].mean()), "smallest_safe": float(signals[safe].min())}

    def _diffusion(self) -> dict[str, Any]:
        settings = self.config.diffusion
        return self._train(self._with_features(DiffusionStage), DiffusionSource(self.trajectories, self.signals()),
                           settings.steps, settings.batch, settings.horizon, self.out / "diffusion")

    def _generate(self) -> dict[str, Any]:
        stage = self._with_features(DiffusionStage)
        stage.load(self.out / "diffusion" / RUN_FOLDER)
        settings = self.config.diffusion
        conditions = desired_conditions(self.trajectories, self.signals(), settings.generated, self.seed,
                                        settings.signal_quantile)
        generated = stage.generate(conditions, self.seed)
        write_generated(self.out / GENERATED, generated, self._hash("diffusion"))
        return {"generated": str(self.out / GENERATED), "trajectories": len(conditions),
                "steps": int(generated.mask.sum())}

    def _clone(self) -> dict[str, Any]:
        generated, settings = self.generated(), self.config.cloning
        recorded = self.trajectories.safe
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

    def _hash(self, stage: str) -> str:
        return str(read_manifest(self.out / stage / RUN_FOLDER)["sha256"])


def write_generated(path: Path, generated: Generated, model: str) -> None:
    """D^G as HDF5, atomically. model: SHA-256 of the diffusion's weights."""
    partial = path.with_name(f".{path.name}.tmp")
    with h5py.File(partial, "w") as file:
        for name, array in vars(generated).items():
            file.create_dataset(name, data=array, compression="gzip")
        file.attrs["diffusion"] = model
    partial.replace(path)


def read_generated(path: Path) -> tuple[Generated, str]:
    """Inverse of `write_generated`. Raises `DatasetError`."""
    try:
        with h5py.File(path) as file:
            return Generated(*(file[name][()] for name in ("states", "actions", "mask", "conditions"))), \
                str(file.attrs["diffusion"])
    except (OSError, KeyError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); run the stage generate first") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(json.dumps(content) + "\n")
    partial.replace(path)
