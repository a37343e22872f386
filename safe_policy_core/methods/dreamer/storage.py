"""Checkpoints of the learners that inherit from Dreamer's: every tensor in its own type.

"model.NAME", "optimiser.PART/PARAMETER/MOMENT" and "generator".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safe_policy_core.checkpoint import load_checkpoint, load_into, save_checkpoint
from safe_policy_core.errors import CheckpointError
from safe_policy_core.methods.configuration import to_json

if TYPE_CHECKING:
    from safe_policy_core.methods.dreamer.learner import DreamerLearner

MODEL, _OPTIMISER, _GENERATOR = "model.", "optimiser.", "generator"


def save_learner_state(learner: DreamerLearner, directory: Path) -> None:
    """Writes everything that `load_learner_state` needs to continue exactly."""
    tensors = {MODEL + name: tensor for name, tensor in learner.model.state_dict().items()}
    for part, optimiser in learner.optimisers.items():
        tensors |= {f"{_OPTIMISER}{part}/{name}": tensor for name, tensor in optimiser.tensors().items()}
    tensors[_GENERATOR] = learner.generator.get_state()
    save_checkpoint(directory, tensors, {
        "method": learner.method, "config": to_json(learner.config), "specs": learner.specs.to_json(),
        "step": learner.step, "seed": learner.seed, "extra": {"online": learner.online}})


def load_learner_state(learner: DreamerLearner, directory: Path) -> None:
    """Inverse of `save_learner_state`. Raises `CheckpointError` naming the field or tensor that differs."""
    tensors, manifest = load_checkpoint(directory, method=learner.method, specs=learner.specs)
    # By way of JSON, where tuples are lists.
    given, mine = manifest["config"], json.loads(json.dumps(to_json(learner.config)))
    if different := sorted(name for name in given.keys() | mine.keys() if given.get(name) != mine.get(name)):
        raise CheckpointError(f"{directory}: config.{different[0]}: expected {mine.get(different[0])}, the checkpoint "
                              f"has {given.get(different[0])}")
    if _GENERATOR not in tensors or not isinstance(manifest["extra"].get("online"), bool):
        raise CheckpointError(f"{directory}: {_GENERATOR}, extra.online: expected both, one is missing")
    try:
        load_into(learner.model, tensors, MODEL)
        for part, optimiser in learner.optimisers.items():
            prefix = f"{_OPTIMISER}{part}/"
            optimiser.load({name.removeprefix(prefix): tensor for name, tensor in tensors.items()
                            if name.startswith(prefix)})
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{directory}: {_OPTIMISER}{error.args[0]}: unexpected in the checkpoint") from error
    learner.generator.set_state(tensors[_GENERATOR])
    learner.step, learner.online = manifest["step"], manifest["extra"]["online"]
