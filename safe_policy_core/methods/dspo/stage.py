"""What the three trained stages share: seeded networks, and checkpoints from which training continues exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from safe_policy_core.checkpoint import load_checkpoint, load_into, read_manifest, save_checkpoint
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json, to_json
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.features import FeatureMap
from safe_policy_core.networks.optimiser import Optimiser


class Stage:
    """A learner of one stage. Subclasses make `networks` and `optimisers`, by name, and define `update`.

    features: maps observations to states; on the CPU, and part of every stage's checkpoint.
    """

    config_class = DspoConfig
    method: ClassVar[str]

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

    def make_networks(self) -> dict[str, nn.Module]:
        raise NotImplementedError

    @classmethod
    def restored(cls, directory: Path | str, device: torch.device | str = "cpu") -> Any:
        """The stage of a checkpoint, features included. Raises `CheckpointError`."""
        manifest = read_manifest(directory)
        stage = cls(Specs.from_json(manifest["specs"]), from_json(cls.config_class, manifest["config"]),
                    manifest["seed"], device)
        stage.load(directory)
        return stage

    def save(self, directory: Path | str) -> None:
        """Writes a checkpoint from which `load` continues exactly."""
        tensors = {f"{group}.{name}": tensor for group, network in self._modules().items()
                   for name, tensor in network.state_dict().items()}
        tensors |= {f"{group}_optimiser.{name}": tensor for group, optimiser in self.optimisers.items()
                    for name, tensor in optimiser.tensors().items()}
        save_checkpoint(directory, tensors, {"method": self.method, "config": to_json(self.config),
                                             "specs": self.specs.to_json(), "step": self.step, "seed": self.seed})

    def load(self, directory: Path | str) -> None:
        """Inverse of `save`. Raises `CheckpointError` naming the field or tensor that differs."""
        tensors, manifest = load_checkpoint(directory, method=self.method, specs=self.specs)
        given, mine = manifest["config"], to_json(self.config)
        for name in sorted(given.keys() | mine.keys()):
            # A checkpoint's JSON has lists for tuples.
            if _plain(given.get(name)) != _plain(mine.get(name)):
                raise CheckpointError(f"{directory}: config.{name}: expected {mine.get(name)}, the checkpoint has "
                                      f"{given.get(name)}")
        for group, network in self._modules().items():
            load_into(network, tensors, f"{group}.")
        for group, optimiser in self.optimisers.items():
            prefix = f"{group}_optimiser."
            try:
                optimiser.load({name.removeprefix(prefix): tensor for name, tensor in tensors.items()
                                if name.startswith(prefix)})
            except KeyError as error:
                raise CheckpointError(f"{directory}: {prefix}{error.args[0]}: unexpected in the checkpoint") from error
        self.step = manifest["step"]

    def _modules(self) -> dict[str, nn.Module]:
        return {"features": self.features, **self.networks}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
