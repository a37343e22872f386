"""A policy whose motion does not depend on what it sees, with weights like any other's."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from safe_policy_core.methods.registry import make_learner
from sim.safe_reach.task import SPECS
from tests.core.fosp_rig import tiny_config

SPEED = 1.0
"""Actor's mean before its tanh: three quarters of the largest step along +y, away from where episodes begin."""
SURE = -20.0
"""Actor's output for the spread: the least there is."""


def steady_checkpoint(directory: Path) -> Path:
    """A tiny FOSP that moves the arm straight on: a fault needs an arm that moves, whatever the scene."""
    torch.set_num_threads(1)
    learner = make_learner("fosp", SPECS, tiny_config(), 0)
    actions = SPECS.action.shape[0]
    output = learner.model.actor.network.output
    with torch.no_grad():
        output.bias[1], output.bias[actions:] = SPEED, SURE
    learner.save(directory)
    return directory


if __name__ == "__main__":
    steady_checkpoint(Path(sys.argv[1]))
