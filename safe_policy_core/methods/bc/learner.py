"""Behaviour cloning of safe demonstrations (BC-Safe) or of all of them (BC-All).

The executed action is regressed on the current observation alone. It knows no cost: its safety
is that of the episodes it imitates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from safe_policy_core.checkpoint import load_checkpoint, load_into
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.episodes import EpisodeSummary
from safe_policy_core.data.transitions import TransitionStore
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.bc.config import BcConfig
from safe_policy_core.methods.bc.model import BcModel, shift_images
from safe_policy_core.methods.bc.policy import BcPolicy
from safe_policy_core.methods.configuration import from_json
from safe_policy_core.methods.training_state import load_state, save_state
from safe_policy_core.networks.optimiser import Optimiser, rate_at

_MODEL = "model"


class BcLearner:
    """Trains a `BcModel`. The same specs, config, seed and batches give the same numbers on a CPU."""

    config_class = BcConfig
    method = "bc"

    def __init__(self, specs: Specs, config: BcConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        self.specs, self.config, self.seed = specs, config or BcConfig(), seed
        self.device, self.step = torch.device(device), 0
        # Initial weights come from the seed alone, whatever the process drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = BcModel(specs, self.config).to(self.device)
        self.optimiser = Optimiser(self.model, self.config.learning_rate, self.config.gradient_clip)

    def select_episode(self, summary: EpisodeSummary) -> bool:
        """Whether an episode is imitated."""
        safe = summary.total_cost <= self.config.cost_limit or self.config.selection == "all"
        return safe and (summary.success or not self.config.only_successful)

    def data_source(self, dataset: DsrlDataset) -> TransitionStore:
        """Single steps of the episodes that are imitated. Raises `DatasetError` when there are none."""
        if self.config.selection == "all":
            return TransitionStore(dataset)
        return TransitionStore(dataset, dataset.cost_returns <= self.config.cost_limit)

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One gradient step on the rows that have a next action, or on steps of a DSRL dataset, which all have one.

        Raises `DatasetError` for a missing field.
        """
        self.step += 1
        if "first_observation" in batch and len(self.specs.observation) == 1:
            (name,) = self.specs.observation
            batch = {name: batch["observation"], "next_action": batch["action"],
                     "has_next_action": np.ones(len(batch["action"]), bool)}
        if missing := sorted({*self.specs.observation, "next_action", "has_next_action"} - batch.keys()):
            raise DatasetError(f"batch: {missing[0]}: missing")
        mask = np.asarray(batch["has_next_action"], bool)
        if not mask.any():
            raise DatasetError("batch: has_next_action: no row has a next action")
        observation = {name: torch.as_tensor(np.asarray(batch[name])[mask]) for name in self.specs.observation}
        if self.config.shift:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            observation = {name: shift_images(value, self.config.shift, generator) if value.dim() == 4 else value
                           for name, value in observation.items()}
        observation = {name: value.to(self.device) for name, value in observation.items()}
        target = torch.as_tensor(np.asarray(batch["next_action"])[mask], device=self.device)
        self.model.update_statistics(observation)
        distribution = self.model(observation)
        error = (distribution.mean - target).square().sum(-1).mean()
        loss = error if self.config.loss == "squared" else -distribution.log_probability(target).mean()
        norm = self.optimiser.step(loss, rate=rate_at(self.step, decay=self.config.decay))
        return {"loss": float(loss.detach()), "squared_error": float(error.detach()), "gradient_norm": norm}

    def policy(self) -> BcPolicy:
        """A policy that shares the weights in training."""
        return BcPolicy(self.model, self.specs, self.config.loss == "likelihood", self.device)

    def save(self, directory: Path | str) -> None:
        """Writes a checkpoint from which `load` continues exactly."""
        save_state(self, directory, {_MODEL: self.model}, {"optimiser": self.optimiser})

    def load(self, directory: Path | str) -> None:
        """Inverse of `save`. Raises `CheckpointError` naming the field or tensor that differs."""
        load_state(self, directory, {_MODEL: self.model}, {"optimiser": self.optimiser})

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> BcPolicy:
        """The policy of a checkpoint. Raises `CheckpointError`."""
        tensors, manifest = load_checkpoint(directory, method=cls.method)
        specs, config = Specs.from_json(manifest["specs"]), from_json(BcConfig, manifest["config"])
        model = BcModel(specs, config).to(device)
        load_into(model, tensors, f"{_MODEL}.")
        return BcPolicy(model.eval().requires_grad_(False), specs, config.loss == "likelihood", device)
