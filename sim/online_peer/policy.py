"""An actor that omnisafe trained, as a policy of this project. numpy only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs

CLIP = 5.0
"""Normalised observations are clipped to this, as in training."""


class PeerPolicy(Policy):
    """The mean action of a Gaussian actor with tanh layers. Raises `CheckpointError` for a file that does not fit."""

    def __init__(self, path: Path, specs: Specs) -> None:
        self.specs = specs
        (self._name,) = specs.observation
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
        try:
            self._mean, self._deviation = tensors["mean"], tensors["deviation"]
            self._layers = [(tensors[f"weight{i}"], tensors[f"bias{i}"]) for i in range((len(tensors) - 2) // 2)]
        except KeyError as error:
            raise CheckpointError(f"{path}: {error.args[0]}: missing") from error
        mine = (len(self._mean), len(self._layers[-1][1]) if self._layers else 0)
        wanted = (*specs.observation[self._name].shape, *specs.action.shape)
        if mine != wanted:
            raise CheckpointError(f"{path}: made for {mine[0]} observed numbers and {mine[1]} actions, the environment "
                                  f"has {wanted[0]} and {wanted[1]}")

    def reset(self, seed: int) -> None:
        """Nothing is drawn and nothing remembered."""

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        vector = self.specs.validate_observation(observation)[self._name]
        hidden = np.clip((vector - self._mean) / self._deviation, -CLIP, CLIP)
        for weight, bias in self._layers[:-1]:
            hidden = np.tanh(weight @ hidden + bias)
        weight, bias = self._layers[-1]
        return ActionDecision(np.clip(weight @ hidden + bias, self.specs.action.low, self.specs.action.high)
                              .astype(np.float32))
