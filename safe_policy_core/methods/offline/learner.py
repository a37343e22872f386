"""What every baseline shares: reading batches, optimisers, checkpoints. A method adds its networks and its step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from safe_policy_core.checkpoint import load_checkpoint, load_into
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sources import DataSource
from safe_policy_core.data.transitions import TransitionStore
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Policy, Specs
from safe_policy_core.methods.configuration import from_json
from safe_policy_core.methods.offline.config import ConstrainedConfig, OfflineConfig
from safe_policy_core.methods.offline.model import OfflineModel, Steps
from safe_policy_core.methods.offline.policy import OfflinePolicy
from safe_policy_core.methods.ranges import warn_outside
from safe_policy_core.methods.training_state import load_state, save_state
from safe_policy_core.networks.optimiser import Optimiser

_MODEL = "model"
_FIELDS = ("observation", "next_observation", "first_observation", "action", "reward", "cost", "terminal")


class OfflineLearner(ABC):
    """Trains an `OfflineModel`. The same specs, config, seed and batches give the same numbers on a CPU.

    A subclass sets `method`, `config_class` and `model_class`, says in `trained` which module each optimiser
    trains at which rate, and takes one gradient step in `learn`.
    """

    method: ClassVar[str]
    config_class: ClassVar[type[OfflineConfig]]
    model_class: ClassVar[type[OfflineModel]]

    def __init__(self, specs: Specs, config: Any = None, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.specs, self.seed = specs, seed
        self.config: Any = config or self.config_class()
        self.device, self.step = torch.device(device), 0
        # Initial weights come from the seed alone, whatever the process drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: Any = self.model_class(specs, self.config).to(self.device)
        # None of the papers clips; the optimiser still refuses gradients that are not finite.
        self.optimisers = {name: Optimiser(module, rate, float("inf"))
                           for name, (module, rate) in self.trained().items()}

    @abstractmethod
    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        """Optimiser -> the module it trains and its learning rate."""

    @abstractmethod
    def learn(self, steps: Steps) -> dict[str, Any]:
        """One step of every network. Returns metrics: numbers, or tensors of one element."""

    def data_source(self, dataset: DsrlDataset) -> DataSource:
        """Single steps; the first time, their scales are measured."""
        if self.step == 0:
            self.model.fit(dataset, self.config.reward_scale)
            if isinstance(self.config, ConstrainedConfig):
                warn_outside("cost_limit", self.config.cost_limit, float(dataset.cost_returns.min()),
                             float(dataset.cost_returns.max()))
        return TransitionStore(dataset)

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One gradient step. Random draws are torch's global ones. Raises `DatasetError` for a missing field."""
        if missing := sorted(set(_FIELDS) - batch.keys()):
            raise DatasetError(f"batch: {missing[0]}: missing")
        self.step += 1
        tensors = {name: torch.as_tensor(batch[name], device=self.device) for name in _FIELDS}
        return {name: float(value) for name, value in
                self.learn(self.model.steps(tensors)).items()}

    def policy(self) -> Policy:
        """A policy that shares the weights in training."""
        return OfflinePolicy(self.model, self.specs, self.device)

    def save(self, directory: Path | str) -> None:
        """Writes a checkpoint from which `load` continues exactly."""
        save_state(self, directory, {_MODEL: self.model}, self._named_optimisers())

    def load(self, directory: Path | str) -> None:
        """Inverse of `save`. Raises `CheckpointError` naming the field or tensor that differs."""
        load_state(self, directory, {_MODEL: self.model}, self._named_optimisers())

    def _named_optimisers(self) -> dict[str, Optimiser]:
        return {f"optimisers.{group}": optimiser for group, optimiser in self.optimisers.items()}

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> Policy:
        """The policy of a checkpoint. Raises `CheckpointError`."""
        tensors, manifest = load_checkpoint(directory, method=cls.method)
        specs, config = Specs.from_json(manifest["specs"]), from_json(cls.config_class, manifest["config"])
        model = cls.model_class(specs, config).to(device)
        load_into(model, tensors, f"{_MODEL}.")
        return OfflinePolicy(model.eval().requires_grad_(False), specs, device)
