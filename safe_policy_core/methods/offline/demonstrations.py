"""Batches of a few safe demonstrations and unlabelled data, and what tells one from the other."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sources import KNOWN_SAFE, DataSource
from safe_policy_core.data.split_safe import choose_demonstrations
from safe_policy_core.data.transitions import TransitionStore
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.offline.learner import OfflineLearner
from safe_policy_core.networks.mlp import relu_mlp


class DemonstrationSource:
    """Batches whose first half are steps of demonstrations, and whose second half are steps of unlabelled data.

    demonstrations: their numbers.
    """

    def __init__(self, dataset: DsrlDataset, demonstrations: np.ndarray) -> None:
        self.demonstrations = demonstrations
        chosen = np.zeros(len(dataset), bool)
        chosen[demonstrations] = True
        self._dataset, self._parts = dataset, (TransitionStore(dataset, chosen), TransitionStore(dataset, ~chosen))

    @property
    def specs(self) -> Specs:
        return self._dataset.specs

    def __len__(self) -> int:
        return len(self._dataset)

    def data_hash(self) -> str:
        return self._dataset.data_hash()

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """2 * (batch // 2) steps, with the fields of `TransitionStore.sample`."""
        safe, unlabelled = (part.sample(batch // 2, length, rng) for part in self._parts)
        return {name: np.concatenate([safe[name], unlabelled[name]]) for name in safe}


class DemonstrationsLearner(OfflineLearner):
    """Takes the demonstrations that the dataset names (metadata `KNOWN_SAFE`: numbers of episodes).

    Where it names none, they are chosen as `safe-policy split-safe` does with the same seed, so that methods compare.
    Raises `DatasetError` where there are no costs to choose by.
    """

    def data_source(self, dataset: DsrlDataset) -> DataSource:
        super().data_source(dataset)
        config = self.config
        if KNOWN_SAFE in dataset.metadata:
            return DemonstrationSource(dataset, np.array(dataset.metadata[KNOWN_SAFE]))
        if not dataset.costs.any():
            raise DatasetError("costs: all are 0, so nothing tells which episodes are safe; expected data with costs, "
                               "or the folder of `safe-policy dataset split-safe` with safe.hdf5 and unlabelled.hdf5")
        return DemonstrationSource(dataset, choose_demonstrations(
            dataset.returns, dataset.cost_returns <= config.cost_limit, config.demonstrations,
            config.demonstration_share, np.random.default_rng(self.seed)))


def discriminator(inputs: int, units: int, layers: int) -> nn.Sequential:
    """A logit that is high for demonstrations."""
    return relu_mlp(inputs, 1, units, layers)


def halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of the demonstrations, of the unlabelled steps."""
    half = len(values) // 2
    return values[:half], values[half:]
