"""Training of a conditional transformer (QPT eq. 3; CDT's likelihood with a learned temperature)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.checkpoint import load_checkpoint, load_into
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import PromptedStore, SequenceStore, augmented, cost_weights
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.methods.ranges import warn_outside
from safe_policy_core.methods.sequence.config import SequenceConfig
from safe_policy_core.methods.sequence.model import SequenceModel, Windows, align
from safe_policy_core.methods.sequence.policy import SequencePolicy
from safe_policy_core.networks.distributions import bernoulli_negative_log_likelihood
from safe_policy_core.networks.optimiser import Optimiser, rate_at

LARGEST_ACTION = 0.999
"""Recorded actions at a bound count as this under a tanh-Gaussian, where their density would be infinite."""
AUGMENTATION = 2
"""Stream of random numbers for relabelling, beside those of offline and online steps."""


class SequenceLearner(OfflineLearner):
    """Trains a `SequenceModel` on windows of a DSRL dataset."""

    config_class: ClassVar[Any] = SequenceConfig
    model_class: ClassVar[Any] = SequenceModel
    policy_class: ClassVar[type[SequencePolicy]] = SequencePolicy

    def __init__(self, specs: Specs, config: Any = None, seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(specs, config, seed, device)
        self.model.eval()  # dropout is for updates: a policy that shares the weights must not see it
        self.optimisers["policy"] = Optimiser(self.model.actor, self.config.learning_rate, self.config.gradient_clip,
                                              weight_decay=self.config.weight_decay)

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        rate = self.config.learning_rate
        temperature = {"temperature": (self.model.temperature, rate)} if self.config.stochastic else {}
        return {"policy": (self.model.actor, rate), **temperature}

    def data_source(self, dataset: DsrlDataset) -> SequenceStore:
        """Windows of the dataset and of its relabelled episodes; the first time, their scales are measured."""
        config = self.config
        if self.step == 0:
            self.model.measure(dataset)
            self.check_target(dataset)
        relabelled = None
        if config.augmentation:
            relabelled = augmented(dataset, config.augmentation, np.random.default_rng((self.seed, AUGMENTATION)))
        weights = cost_weights(dataset, self.dearest(dataset)) if config.sample_by_cost else None
        if config.prompt_steps:
            return PromptedStore(dataset, config.length, config.prompt_steps, weights, relabelled)
        return SequenceStore(dataset, config.length, weights, relabelled)

    def check_target(self, dataset: DsrlDataset) -> None:
        """Says, before any training, where the target cost is none of the data's."""
        warn_outside("target_cost", self.config.target_cost, float(dataset.cost_returns.min()),
                     float(dataset.cost_returns.max()))

    def dearest(self, dataset: DsrlDataset) -> float:
        """What episodes cost that are just not drawn any more."""
        share = self.config.sampled_cost
        return float(dataset.cost_returns.max()) + 1 if share is None else share * self.config.target_cost

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One gradient step. Random draws are torch's global ones. Raises `DatasetError` for a missing field."""
        if missing := sorted({*Windows._fields} - batch.keys()):
            raise DatasetError(f"batch: {missing[0]}: missing; this method trains on windows of a DSRL file")
        self.step += 1
        windows = align({name: torch.as_tensor(batch[name], device=self.device) for name in Windows._fields})
        self.model.actor.train()
        metrics = self.learn(self.model.scaled(windows))
        self.model.actor.eval()
        return {name: float(value) for name, value in metrics.items()}

    def learn(self, windows: Any) -> dict[str, Any]:
        """One step of the policy on a scaled batch."""
        steps = windows.mask.sum()
        metrics: dict[str, Any] = {}
        for chunk in self.chunks(windows):
            features = self.model.actor.features(chunk)[chunk.mask]
            loss, found = self.policy_loss(chunk, features)
            self.optimisers["policy"].add(loss / steps)
            for name, value in ({"loss": loss.detach()} | found).items():
                metrics[name] = metrics.get(name, 0) + value / steps
        metrics["gradient_norm"] = self.optimisers["policy"].apply(
            rate_at(self.step, self.config.warm_up, self.config.decay))
        if self.config.stochastic:
            # The temperature rises while the entropy is below its target (Haarnoja et al. 2018, eq. 18).
            target = self.config.target_entropy
            excess = metrics["entropy"] - (-self.model.action_dim if target is None else target)
            self.optimisers["temperature"].step(self.model.temperature() * excess)
            metrics["temperature"] = self.model.temperature().detach()
        return metrics

    def chunks(self, windows: Windows) -> Iterator[Windows]:
        """A batch in parts that fit into the processor's cache; a GPU takes it whole."""
        size = self.config.chunk if self.device.type == "cpu" else len(windows.mask)
        for begin in range(0, len(windows.mask), size):
            yield windows.part(begin, begin + size)

    def policy_loss(self, windows: Windows, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over the n steps that are not padding, of which `features` (n, units) are the features."""
        action, cost = windows.actions[windows.mask], windows.costs[windows.mask]
        if self.config.stochastic:
            found = self.model.actor.distribution(features)
            raw = action.clamp(-LARGEST_ACTION, LARGEST_ACTION).atanh()
            entropy = -found.log_probability(found.raw_sample(torch.randn_like(action))).sum()
            likelihood = found.log_probability(raw).sum()
            loss = -likelihood - self.model.temperature().detach() * entropy
            metrics = {"negative_log_likelihood": -likelihood.detach(), "entropy": entropy.detach()}
        else:
            loss = (self.model.actor.act(features) - action).square().sum()  # eq. 3
            metrics = {"squared_error": loss.detach()}
        if self.config.use_cost:
            # A soft target: a fraction of the largest cost stays a fraction.
            logit = self.model.actor.cost_head(torch.cat([features, action], -1)).squeeze(-1)
            largest = self.model.largest_step_cost * self.model.cost_unit
            share = (cost / largest).clamp(0, 1)
            predicted = bernoulli_negative_log_likelihood(logit, share).sum()
            loss, metrics["cost_loss"] = loss + self.config.cost_weight * predicted, predicted.detach()
        return loss, metrics

    def policy(self) -> SequencePolicy:
        """A policy that shares the weights in training."""
        return self.policy_class(self.model, self.specs, self.device)

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> SequencePolicy:
        """The policy of a checkpoint. Raises `CheckpointError`."""
        tensors, manifest = load_checkpoint(directory, method=cls.method)
        specs, config = Specs.from_json(manifest["specs"]), from_json(cls.config_class, manifest["config"])
        model = cls.model_class(specs, config).to(device)
        load_into(model, tensors, "model.")
        return cls.policy_class(model.eval().requires_grad_(False), specs, device)
