"""Safety-Gymnasium as FOSP sees it: what the agent's own camera shows ahead and, turned around, behind."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from safe_policy_core.interfaces import Observation, Spec, Specs
from sim.safety_gymnasium.environment import IMAGE_SIZE, SafetyGymnasiumEnv

CAMERA = "vision"
HALF_TURN = np.array([0.0, 0.0, 0.0, 1.0])
"""Quaternion (w, x, y, z) of half a turn around the agent's vertical axis."""


class FrontBackEnv(SafetyGymnasiumEnv):
    """A task by its id, seen in two pictures of (64, 64, 3) uint8 after the last of an action's repeats.

    Observations: "image" from the agent's camera, "image_back" from the same camera turned around with the agent's
    vertical axis. The sky is black, not starry (see `assets`); there are neither shadows nor the floor's reflections
    nor multisampling, which take most of the time in software rendering.
    """

    def __init__(self, env_id: str, repeat: int = 4) -> None:
        super().__init__(env_id, repeat)
        shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
        self.specs = Specs({name: Spec(f"observation/{name}", shape, "uint8", 0, 255)
                            for name in ("image", "image_back")}, self.specs.action)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 1
        self._renderer: mujoco.Renderer | None = None

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        self._close_renderer()  # it belongs to the world of the episode before
        return super().reset(seed)

    def close(self) -> None:
        self._close_renderer()
        super().close()

    def _observation(self, raw: Any) -> Observation:
        model, data = self.simulation.task.model, self.simulation.task.data
        if self._renderer is None:
            model.vis.quality.offsamples = 0
            model.mat_reflectance[:] = 0
            self._renderer = mujoco.Renderer(model, IMAGE_SIZE, IMAGE_SIZE)
        camera = model.camera(CAMERA)
        front = self._picture(data)
        position, quaternion = camera.pos.copy(), camera.quat.copy()
        camera.pos[:2] *= -1
        mujoco.mju_mulQuat(camera.quat, HALF_TURN, quaternion)
        mujoco.mj_camlight(model, data)
        back = self._picture(data)
        camera.pos[:], camera.quat[:] = position, quaternion
        mujoco.mj_camlight(model, data)
        return {"image": front, "image_back": back}

    def _picture(self, data: Any) -> np.ndarray:
        assert self._renderer is not None
        self._renderer.update_scene(data, CAMERA, self._option)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False
        return self._renderer.render()

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
