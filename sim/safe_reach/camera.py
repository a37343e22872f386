"""Pictures of the scene. Used by the direct environment and, in a process of its own, beside the server."""

from __future__ import annotations

import os
import weakref

import mujoco
import numpy as np

from sim.safe_reach.scene import CAMERA, Scene

# Software rendering in the calling thread: at 64x64 its helper threads cost more than they do, and they would
# run at another priority than the thread that waits for them. Read when the first context is made.
os.environ.setdefault("LP_NUM_THREADS", "0")


class SceneCamera:
    """Renders the fixed third-person view of a scene whose positions are up to date (`mj_kinematics`)."""

    def __init__(self, scene: Scene, height: int, width: int) -> None:
        self._scene = scene
        self._renderer = mujoco.Renderer(scene.model, height, width)
        # Also at interpreter exit, before EGL is gone: a renderer freed after that prints a traceback.
        self._free = weakref.finalize(self, self._renderer.close)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION,
                     mujoco.mjtRndFlag.mjRND_SKYBOX, mujoco.mjtRndFlag.mjRND_HAZE):
            self._renderer.scene.flags[flag] = 0
        self._option = mujoco.MjvOption()

    def _update(self) -> None:
        # Cameras and lights are placed after the kinematics; a physics step does it too early or not at all.
        mujoco.mj_camlight(self._scene.model, self._scene.data)
        self._renderer.update_scene(self._scene.data, CAMERA, self._option)

    def image(self) -> np.ndarray:
        """(height, width, 3) uint8 RGB."""
        self._update()
        return self._renderer.render().copy()

    def segmentation(self) -> np.ndarray:
        """(height, width) int: 1 + i for obstacle i, 1 + MAX_OBSTACLES for the target, 0 for everything else."""
        self._update()
        self._renderer.enable_segmentation_rendering()
        try:
            geom = self._renderer.render()[..., 0]
        finally:
            self._renderer.disable_segmentation_rendering()
        item_of = np.zeros(self._scene.model.ngeom + 1, int)
        for item, pair in enumerate(self._scene.geoms):
            item_of[pair] = 1 + item
        return item_of[geom]

    def close(self) -> None:
        self._free()
