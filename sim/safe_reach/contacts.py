"""The contact sensor: cost and reward from MuJoCo contacts, the same in the direct environment and the server."""

from __future__ import annotations

import numpy as np

from sim.safe_reach import task
from sim.safe_reach.scene import ROBOT_PREFIX, Scene

REST_SPEED = 0.005
"""An obstacle slower than this [m/s] ..."""
REST_ROTATION_SPEED = 0.1
"""... and than this [rad/s] ..."""
REST_TIME = 0.05
"""... for this long [s] is at rest: a box that rocks passes through zero speed without resting."""

_NONE, _TOUCHES_TARGET, _TOUCHES_OBSTACLE = 0, 1, 2


class ContactMonitor:
    """Follows arm contacts from physics step to physics step.

    cost: True from the first contact of any link with an obstacle until that obstacle is free of the arm
        and at rest (FOSP fig. 9). touching: True while the arm touches the target.
    cost_onsets, touch_onsets: how often each went from False to True since `clear`; a reader slower
        than the physics misses no short contact.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        model = scene.model
        self._kind = np.zeros((model.ngeom, model.ngeom), np.int8)
        self._obstacle_of = np.full(model.ngeom, -1)
        arm = [g for g in range(model.ngeom) if model.body(model.geom_bodyid[g]).rootid[0] == self._arm_root(model)]
        for i, pair in enumerate(scene.geoms):
            kind = _TOUCHES_OBSTACLE if i < task.MAX_OBSTACLES else _TOUCHES_TARGET
            for geom in pair:
                self._kind[geom, arm] = self._kind[arm, geom] = kind
                self._obstacle_of[geom] = i if kind == _TOUCHES_OBSTACLE else -1
        self._speed_at = scene.obstacle_dofs[:, None] + np.arange(6)
        self.clear()

    @staticmethod
    def _arm_root(model) -> int:
        return model.body(ROBOT_PREFIX + "hand").rootid[0]

    def clear(self) -> None:
        """Forgets everything: a new episode."""
        self._disturbed = np.zeros(task.MAX_OBSTACLES, bool)
        self._resting = np.zeros(task.MAX_OBSTACLES)
        self.cost = self.touching = False
        self.cost_onsets = self.touch_onsets = 0

    def update(self) -> None:
        """Takes in the physics step that MuJoCo just made."""
        geoms = self._scene.data.contact.geom
        kinds = self._kind[geoms[:, 0], geoms[:, 1]]
        if not self.cost and not np.count_nonzero(kinds):
            self.touching = False
            return
        touching = bool((kinds == _TOUCHES_TARGET).any())
        self.touch_onsets += touching and not self.touching
        self.touching = touching
        hit = self._obstacle_of[geoms[kinds == _TOUCHES_OBSTACLE]].max(1)
        self._disturbed[hit] = True
        if self._disturbed.any():
            self._settle(hit)
        cost = bool(self._disturbed.any())
        self.cost_onsets += cost and not self.cost
        self.cost = cost

    def _settle(self, hit: np.ndarray) -> None:
        speeds = self._scene.data.qvel[self._speed_at]
        slow = (np.linalg.norm(speeds[:, :3], axis=1) < REST_SPEED) & \
            (np.linalg.norm(speeds[:, 3:], axis=1) < REST_ROTATION_SPEED)
        slow[hit] = False
        self._resting = np.where(slow, self._resting + self._scene.model.opt.timestep, 0.0)
        self._disturbed &= self._resting < REST_TIME
