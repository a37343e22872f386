"""Weights, optimisers and configuration of a learner as a checkpoint from which training continues exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from safe_policy_core.checkpoint import load_checkpoint, load_into, save_checkpoint
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json, to_json
from safe_policy_core.networks.optimiser import Optimiser


class InTraining(Protocol):
    """What a checkpoint says about its learner."""

    @property
    def method(self) -> str: ...

    config: Any
    specs: Specs
    step: int
    seed: int


def save_state(learner: InTraining, directory: Path | str, modules: Mapping[str, nn.Module],
               optimisers: Mapping[str, Optimiser]) -> None:
    """Writes a checkpoint whose tensors are named "KEY.NAME", by the keys of `modules` and `optimisers`."""
    tensors = {f"{key}.{name}": tensor for key, module in modules.items()
               for name, tensor in module.state_dict().items()}
    tensors |= {f"{key}.{name}": tensor for key, optimiser in optimisers.items()
                for name, tensor in optimiser.tensors().items()}
    save_checkpoint(directory, tensors, {"method": learner.method, "config": to_json(learner.config),
                                         "specs": learner.specs.to_json(), "step": learner.step, "seed": learner.seed})


def load_state(learner: InTraining, directory: Path | str, modules: Mapping[str, nn.Module],
               optimisers: Mapping[str, Optimiser],
               trained_with: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
    """Inverse of `save_state`, `learner.step` included.

    trained_with: what of a configuration's JSON the training depends on; None: all of it.
    Raises `CheckpointError` naming the field or tensor that differs.
    """
    relevant = trained_with or (lambda config: to_json(from_json(type(learner.config), config)))
    tensors, manifest = load_checkpoint(directory, method=learner.method, specs=learner.specs)
    given, mine = relevant(manifest["config"]), relevant(to_json(learner.config))
    if different := [name for name, value in mine.items() if given[name] != value]:
        raise CheckpointError(f"{directory}: config.{different[0]}: expected {mine[different[0]]}, the checkpoint has "
                              f"{given[different[0]]}")
    for key, module in modules.items():
        load_into(module, tensors, f"{key}.")
    for key, optimiser in optimisers.items():
        prefix = f"{key}."
        try:
            optimiser.load({name.removeprefix(prefix): tensor for name, tensor in tensors.items()
                            if name.startswith(prefix)})
        except KeyError as error:
            raise CheckpointError(f"{directory}: {prefix}{error.args[0]}: unexpected in the checkpoint") from error
    learner.step = manifest["step"]
