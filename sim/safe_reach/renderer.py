"""The camera of the server's scene, in a process of its own: a picture takes longer than several control cycles."""

from __future__ import annotations

import mujoco
import numpy as np

from sim.safe_reach.camera import SceneCamera
from sim.safe_reach.scene import Scene, build_model
from sim.safe_reach.snapshot import Snapshot
from sim.safe_reach.task import IMAGE_SIZE


class SnapshotRenderer:
    """Renders snapshots exactly as `SafeReachEnv` renders the same state. Use from one thread.

    The field of view is `scene.CAMERA_FOVY` [degrees] from top to bottom at any size, at most 480 x 640.
    """

    def __init__(self, height: int = IMAGE_SIZE, width: int = IMAGE_SIZE) -> None:
        model = build_model()
        self._data = mujoco.MjData(model)
        self._scene = Scene(model, self._data)
        self._camera = SceneCamera(self._scene, height, width)

    def render(self, snapshot: Snapshot) -> np.ndarray:
        """(height, width, 3) uint8 RGB."""
        if not np.array_equal(snapshot.shapes, self._scene.shapes):
            self._scene.show(snapshot.shapes)
        self._data.qpos[:] = snapshot.qpos
        self._data.mocap_pos[0], self._data.mocap_quat[0] = snapshot.target[:3], snapshot.target[3:]
        mujoco.mj_kinematics(self._scene.model, self._data)
        return self._camera.image()

    def close(self) -> None:
        self._camera.close()
