"""The recurrent state of a policy on a world model: filtered from observations and the actions that really ran."""

from __future__ import annotations

import numpy as np
import torch

from safe_policy_core.interfaces import Observation, Specs
from safe_policy_core.vision import Surroundings, ToolView
from safe_policy_core.vision.tool_view import IMAGE, SCENE
from safe_policy_core.world_model import LatentState, WorldModel


class LatentFilter:
    """One episode's latent state, one row. The generator's seed fixes every draw until the next reset."""

    def __init__(self, world_model: WorldModel, tool_view: ToolView | None, specs: Specs, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self._world_model, self._tool_view, self._specs, self._device = world_model, tool_view, specs, device
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forgets the episode."""
        self.generator.manual_seed(seed)
        self._state: LatentState | None = None
        self._scene: torch.Tensor | None = None
        self._action = torch.zeros(1, *self._specs.action.shape, device=self._device)

    def observe(self, observation: Observation, deterministic: bool) -> tuple[LatentState, Surroundings | None]:
        """The posterior state, its mode when `deterministic`, and the pictures around the tool where there is a view.

        Raises `SpecError` when the observation is not of the specs.
        """
        arrays = self._specs.validate_observation(observation)
        tensors = {name: torch.as_tensor(array, device=self._device).unsqueeze(0) for name, array in arrays.items()}
        rssm = self._world_model.rssm
        before = rssm.initial(1) if self._state is None else self._state
        noise = None if deterministic else rssm.noise((1,), self.generator)
        self._state = rssm.observe_step(before, self._action, self._world_model.encoder(tensors), noise)
        if self._tool_view is None:
            return self._state, None
        self._scene = tensors[IMAGE] if self._scene is None else self._scene
        around = self._tool_view.surroundings({**tensors, SCENE: self._scene})
        self._state = self._state.with_context(self._tool_view(around))
        return self._state, around

    def acted(self, action: np.ndarray | torch.Tensor) -> None:
        """The state goes on with this action (action_dim,) or (1, action_dim). Raises `SpecError` for a foreign one."""
        if not isinstance(action, torch.Tensor):
            action = torch.as_tensor(self._specs.action.validate(action), device=self._device)
        self._action = action.reshape(1, -1).clone()
