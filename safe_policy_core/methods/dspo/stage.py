"""What the three trained stages share: seeded networks, and checkpoints from which training continues exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json, to_json
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.features import FeatureMap
from safe_policy_core.methods.training_state import load_state, save_state
from safe_policy_core.networks.optimiser import Optimiser


class Stage(ABC):
    """A learner of one stage. Subclasses make `networks` and `optimisers`, by name, and define `update`.

    features: maps observations to states; on the CPU, and part of every stage's checkpoint.
    part: of the configuration, with which a stage is trained. asked_later: what in it does not matter before a trained
    stage is used. The other parts may change without a stage being trained again.
    """

    config_class = DspoConfig
    method: ClassVar[str]
    part: ClassVar[str]
    asked_later: ClassVar[tuple[str, ...]] = ()

    def __init__(self, specs: Specs, config: DspoConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        self.specs, self.config, self.seed = specs, config or DspoConfig(), seed
        self.device, self.step = torch.device(device), 0
        self.features = FeatureMap(specs, self.config.image_features)
        self.optimisers: Mapping[str, Optimiser] = {}
        # Initial weights come from the seed alone, whatever the process drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.networks: dict[str, nn.Module] = {
                name: network.to(self.device) for name, network in self.make_networks().items()}

    @property
    def action_dim(self) -> int:
        return self.specs.action.shape[0]

    @abstractmethod
    def make_networks(self) -> dict[str, nn.Module]:
        """The networks by name, untrained."""

    @abstractmethod
    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One gradient step on a batch of the stage's own source. Returns metrics by name."""

    @classmethod
    def restored(cls, directory: Path | str, device: torch.device | str = "cpu") -> Any:
        """The stage of a checkpoint, features included. Raises `CheckpointError`."""
        manifest = read_manifest(directory)
        stage = cls(Specs.from_json(manifest["specs"]), cls._own(manifest["config"]), manifest["seed"], device)
        stage.load(directory)
        return stage

    def save(self, directory: Path | str) -> None:
        """Writes a checkpoint from which `load` continues exactly."""
        save_state(self, directory, self._modules(), self._named_optimisers())

    def load(self, directory: Path | str) -> None:
        """Inverse of `save`. Raises `CheckpointError` naming the field or tensor that differs."""
        load_state(self, directory, self._modules(), self._named_optimisers(), self._trained_with)

    @classmethod
    def _own(cls, config: dict[str, Any]) -> DspoConfig:
        """The configuration of a checkpoint as far as it is this stage's. All else is the default."""
        own = {name: config.get(name) for name in (cls.part, "image_features")}
        return from_json(cls.config_class, to_json(cls.config_class()) | own)

    @classmethod
    def _trained_with(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Name -> value of the settings that the training of this stage depends on."""
        own = cls._own(config)
        return {"image_features": own.image_features} | {
            f"{cls.part}.{name}": value for name, value in to_json(getattr(own, cls.part)).items()
            if name not in cls.asked_later}

    def _modules(self) -> dict[str, nn.Module]:
        return {"features": self.features, **self.networks}

    def _named_optimisers(self) -> dict[str, Optimiser]:
        return {f"{group}_optimiser": optimiser for group, optimiser in self.optimisers.items()}
