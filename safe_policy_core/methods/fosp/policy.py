"""FOSP acting: a recurrent latent filtered from observations and from the actions that really ran."""

from __future__ import annotations

import numpy as np
import torch

from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.fosp.model import POLICY_NAMES, FospModel
from safe_policy_core.methods.fosp.reach_avoid import ReachAvoid
from safe_policy_core.vision.tool_view import IMAGE, POSE, SCENE
from safe_policy_core.world_model import LatentState

_LONGEST_LEAD = 0.03
"""How far from the tool the command is believed to be at most, along x and y [m]; the gate lets it run 0.04 m ahead."""


class FospPolicy(Policy):
    """Shares the model's weights with whoever trains it; the recurrent state is its own.

    Deterministic: the mode of the latents, of the actor, and of the choice between two actors. With a table map the
    step over the table is the map's wherever it knows a better one.
    """

    def __init__(self, model: FospModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        self.specs = specs
        self._model, self._device = model, torch.device(device)
        self._generator = torch.Generator(self._device)
        self._state: LatentState | None = None
        self._scene: torch.Tensor | None = None
        self.solved: ReachAvoid | None = None
        """The running episode's map, for those who want to see it; None before its first step and without a map."""
        self._commanded: np.ndarray | None = None
        self._action = torch.zeros(1, *specs.action.shape, device=self._device)

    def reset(self, seed: int) -> None:
        self._generator.manual_seed(seed)
        self._state = self._scene = self.solved = self._commanded = None
        self._action = torch.zeros_like(self._action)

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        arrays = self.specs.validate_observation(observation)
        tensors = {name: torch.as_tensor(array, device=self._device).unsqueeze(0) for name, array in arrays.items()}
        model, rssm = self._model, self._model.world_model.rssm
        state = rssm.initial(1) if self._state is None else self._state
        noise = None if deterministic else rssm.noise((1,), self._generator)
        self._state = rssm.observe_step(state, self._action, model.world_model.encoder(tensors), noise)
        if model.tool_view is not None:
            if self._scene is None:
                self._scene = tensors[IMAGE]
                self.solved = model.solved_map(self._scene)
            around = model.tool_view.surroundings({**tensors, SCENE: self._scene})
            self._state = self._state.with_context(model.tool_view(around))
        features = self._state.features
        choice = model.choose(features, self._generator, greedy=deterministic)
        if self.solved is None:
            violation = float(model.reachability.violation_probability(features))
        else:
            tool = arrays[POSE][:2].astype(float)
            self.solved.stand_at(tool)
            commanded = self._commanded_from(tool)
            choice = model.redirected(choice, features, self.solved, commanded)
            # Instead of the network's, which is that of the demonstrators' ways and of copies half of which were made
            # to touch: above 0.95 at some step of 17 in 40 episodes that touched nothing. The cost's value stays the
            # networks' own, and the gate hears it beside this.
            violation = max(self.solved.violation_probability(place) for place in (tool, commanded))
        # Until told otherwise the action is taken to run as asked.
        self._action = choice.action.clone()
        return ActionDecision(
            action=choice.action[0].cpu().numpy().astype(np.float32),
            value=float(model.reward.value(features)), cost_value=float(model.cost.value(features)),
            violation_probability=violation,
            chosen_policy=POLICY_NAMES[int(choice.policy)])

    def observe_executed(self, action: np.ndarray) -> None:
        """The latent goes on with the action that ran. Raises `SpecError` when it is not of the action spec."""
        executed = self.specs.action.validate(action)
        self._action = torch.as_tensor(executed, device=self._device).unsqueeze(0)
        if self._commanded is not None and self._model.tool_view is not None:
            self._commanded += self._model.tool_view.step_length * executed[:2]

    def _commanded_from(self, tool: np.ndarray) -> np.ndarray:
        """(2,) [m] where the tool is going to, measured at `tool` (2,): an action moves the command, and the arm
        follows a centimetre or two behind. Planned from the tool itself, each step would come after the bend that
        it was meant for."""
        if self._commanded is None:
            self._commanded = tool.copy()
        self._commanded = np.clip(self._commanded, tool - _LONGEST_LEAD, tool + _LONGEST_LEAD)
        return self._commanded
