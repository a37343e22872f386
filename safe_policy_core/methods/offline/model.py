"""What the networks of all methods stand on: observations, standardised or not, and scales measured on the dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.networks.normalisers import Standardiser

_ROWS_FOR_STATISTICS = 200_000


@dataclass(frozen=True)
class Steps:
    """B recorded steps. state, next_state, first_state: (B, inputs) standardised. action: (B, action_dim).

    reward: (B,) scaled. cost: (B,) as recorded. discount: (B,), 0 where the episode terminated.
    first_state: where the step's episode began.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    cost: Tensor
    next_state: Tensor
    discount: Tensor
    first_state: Tensor


@dataclass(frozen=True)
class Decision:
    """action: (B, action_dim). value, cost_value: (B,) in the scale of training, or None."""

    action: Tensor
    value: Tensor | None = None
    cost_value: Tensor | None = None


class OfflineModel(nn.Module, ABC):
    """Base of a method's networks; a subclass adds them and `decide`.

    config: the method's dataclass. horizon: steps of the dataset's longest episode. reward_factor: what
    rewards are multiplied by.
    """

    horizon: Tensor
    reward_factor: Tensor

    def __init__(self, specs: Specs, config: Any) -> None:
        super().__init__()
        self.config = config
        shapes = {name: spec.shape for name, spec in specs.observation.items()}
        vectors = [shape for shape in shapes.values() if len(shape) == 1]
        if len(shapes) != 1 or not vectors:
            raise ConfigurationError(f"observation: expected one vector, got {shapes}; this method has no encoder "
                                     "for images")
        self.inputs, self.action_dim = vectors[0][0], specs.action.shape[0]
        self.standardiser = Standardiser(self.inputs, batches=1)
        self.register_buffer("horizon", torch.ones(()))
        self.register_buffer("reward_factor", torch.ones(()))

    def fit(self, dataset: DsrlDataset, reward_scale: float) -> None:
        """Measures the dataset. Where all episodes have the same mean reward, `reward_scale` alone is the factor."""
        if self.config.standardise:
            rows = dataset.observations[::max(1, dataset.rows // _ROWS_FOR_STATISTICS)]
            self.standardiser.update(torch.as_tensor(rows, device=self.horizon.device))
        self.horizon.fill_(float(dataset.lengths.max()))
        self.reward_factor.fill_(reward_scale / (float(np.ptp(dataset.returns / dataset.lengths)) or 1.0))

    def steps(self, batch: Mapping[str, Tensor]) -> Steps:
        """A batch of `TransitionStore` as the losses take it."""
        return Steps(self.standardiser(batch["observation"]), batch["action"], batch["reward"] * self.reward_factor,
                     batch["cost"], self.standardiser(batch["next_observation"]),
                     self.config.discount * (~batch["terminal"]).float(), self.standardiser(batch["first_observation"]))

    @property
    def cost_threshold(self) -> float:
        """The limit on an episode's undiscounted cost as one on discounted cost values."""
        return self.discounted_cost(self.config.cost_limit)

    def discounted_cost(self, cost: float) -> float:
        """An episode's undiscounted cost as a discounted cost value.

        Costs are taken to be spread evenly: cost / T * (1 - discount^T) / (1 - discount), T being `horizon`.
        """
        horizon, discount = float(self.horizon), self.config.discount
        return cost / horizon * (1 - discount**horizon) / (1 - discount)

    @abstractmethod
    def decide(self, state: Tensor, generator: torch.Generator, deterministic: bool) -> Decision:
        """An action for each (B, inputs) standardised state."""


def normal_noise(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers, drawn on the CPU so that a seed gives the same ones on every device."""
    return torch.randn(tuple(shape), generator=generator).to(device)
