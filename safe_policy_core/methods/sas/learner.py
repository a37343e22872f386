"""Training of SAS: predictive heads by likelihood on the features of a frozen base (Figure 5, Table 5).

Deviations from the paper: there the heads are trained with the transformer, here they are put on any finished
checkpoint, whose weights stay as they are; the next return-to-go is the present one less a predicted reward; for a base
with costs the next cost-to-go is predicted in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.checkpoint import annotate_checkpoint, load_checkpoint, load_into, read_manifest
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import PromptedStore, SequenceStore
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.sas.base import FIELD, Base
from safe_policy_core.methods.sas.config import TRAINING, SasConfig
from safe_policy_core.methods.sas.model import SasModel
from safe_policy_core.methods.sas.policy import SasPolicy
from safe_policy_core.methods.sequence.learner import LARGEST_ACTION
from safe_policy_core.methods.sequence.model import Windows, align


class SasLearner(OfflineLearner):
    """Learns from a DSRL file, usually the one that the base learned from."""

    method = "sas"
    config_class = SasConfig  # type: ignore[assignment]

    def __init__(self, specs: Specs, config: SasConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        if config is None or not config.base:
            raise ConfigurationError("base: name the checkpoint of a dt, cdt or qpt that is to align itself "
                                     "(--set base=DIR)")
        self._base = Base.of_checkpoint(config.base)
        super().__init__(specs, config, seed, device)

    def model_class(self, specs: Specs, config: SasConfig) -> SasModel:  # type: ignore[override]
        tensors, _ = load_checkpoint(config.base, specs=specs)
        model = SasModel(self._base.empty_model(specs), config)
        load_into(model.base, tensors, "model.")
        return model.eval()

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        return {"heads": (self.model.heads, self.config.learning_rate)}

    def data_source(self, dataset: DsrlDataset) -> SequenceStore:
        """Windows of the dataset, every episode as often: the energy is about the data as they are."""
        if self.step == 0:
            self.model.measure(dataset)
            self.model.record(dataset, self.config)
        length, prompt = self.model.base.config.length, self.model.base.config.prompt_steps
        return PromptedStore(dataset, length, prompt) if prompt else SequenceStore(dataset, length)

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One gradient step. Random draws are torch's global ones. Raises `DatasetError` for a missing field."""
        if missing := sorted({*Windows._fields} - batch.keys()):
            raise DatasetError(f"batch: {missing[0]}: missing; this method trains on windows of a DSRL file")
        self.step += 1
        windows = align({name: torch.as_tensor(batch[name], device=self.device) for name in Windows._fields})
        return {name: float(value) for name, value in self.learn(self.model.base.scaled(windows)).items()}

    def learn(self, windows: Any) -> dict[str, Any]:
        """One step of all heads on a scaled batch, each by its own likelihood."""
        metrics = self.losses(windows)
        norm = self.optimisers["heads"].step(sum(metrics.values(), torch.zeros((), device=self.device)))
        return {name: value.detach() for name, value in metrics.items()} | {"gradient_norm": norm}

    def losses(self, windows: Windows) -> dict[str, Tensor]:
        """Means over the steps that are followed by one in their window."""
        heads, followed = self.model.heads, windows.mask[:, 1:].clone()
        if prompt := self.model.base.config.prompt_steps:
            followed[:, prompt - 1] = False  # what follows a prompt does not follow from it
        feature, state, action = (value[:, :-1][followed] for value in
                                  (self.model.features(windows), windows.observations, windows.actions))
        received = torch.stack([windows.rewards, windows.costs], -1)[:, :-1][followed]
        normal = torch.randn(1, len(state), self.config.latent, device=self.device)
        evidence, predicted = heads.evidence(feature, state, action, windows.observations[:, 1:][followed], normal)
        found = {"next_state": -evidence.mean(),
                 "received": (predicted - received / heads.received_scale).square().sum(-1).mean()}
        if heads.action is not None:
            raw = action.clamp(-LARGEST_ACTION, LARGEST_ACTION).atanh()
            found["action"] = -self.model.actions(feature).log_probability(raw).mean()
        return found

    def policy(self, config: SasConfig | None = None) -> SasPolicy:
        """A policy that shares the weights in training. config: to align otherwise than the learner's says."""
        base = self._base.policy(self.model.base, self.specs, self.device)
        return SasPolicy(base, self.model, config or self.config)

    def save(self, directory: Path | str) -> None:
        """Writes a checkpoint with the base inside, from which `load` continues exactly."""
        super().save(directory)
        annotate_checkpoint(directory, extra={FIELD: self._base.to_json()})

    def load(self, directory: Path | str) -> None:
        """Inverse of `save`. Raises `CheckpointError` naming what differs, the base included.

        Settings of the alignment alone may differ, and where the base lies.
        """
        manifest = read_manifest(directory)
        found, mine = Base.inside(directory, manifest).sha256, self._base.sha256
        if found != mine:
            raise CheckpointError(f"{directory}: base: was {found[:12]}, {self.config.base} is {mine[:12]}")
        config, given = self.config, from_json(SasConfig, manifest["config"])
        for name in (*TRAINING, *(["prompt_steps"] if config.recorded else [])):
            if getattr(given, name) != getattr(config, name):
                raise CheckpointError(f"{directory}: config.{name}: expected {getattr(config, name)}, the checkpoint "
                                      f"has {getattr(given, name)}")
        self.config = given  # where a checkpoint is read all of it is compared
        try:
            super().load(directory)
        finally:
            self.config = config
        self.model.eval()

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> SasPolicy:
        """The policy of a checkpoint. Raises `CheckpointError`."""
        tensors, manifest = load_checkpoint(directory, method=cls.method)
        base, specs = Base.inside(directory, manifest), Specs.from_json(manifest["specs"])
        config = from_json(SasConfig, manifest["config"])
        model = SasModel(base.empty_model(specs), config).to(device)
        load_into(model, tensors, "model.")
        model.eval().requires_grad_(False)
        return SasPolicy(base.policy(model.base, specs, device), model, config)
