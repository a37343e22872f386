"""franky_sim's FR3 with its per-cycle reads and writes as array slices: a third less work per millisecond."""

from __future__ import annotations

import mujoco
import numpy as np
from franky_sim.base_simulator import InnerRobotState
from franky_sim.constants import DEFAULT_INITIAL_JOINT_POS
from franky_sim.mujoco_simulator import FrankaMujocoRobot, MujocoSimulator

HAND_STIFFNESS, HAND_DAMPING = 1000.0, 50.0
"""Of each closed finger [N/m], [Ns/m]."""


class ClosedHandArm(FrankaMujocoRobot):
    """An arm whose fingers are held closed; gripper commands are accepted and have no effect."""

    def _attach_to_scene(self, model: mujoco.MjModel, data: mujoco.MjData, prefix: str) -> None:
        super()._attach_to_scene(model, data, prefix)
        self._q = slice(self._qpos_addrs[0], self._qpos_addrs[0] + 7)
        self._dof = slice(self._dof_addrs[0], self._dof_addrs[0] + 7)
        self._low, self._high = self.torque_limit_low, self.torque_limit_high
        close_hand(model, prefix)

    def _get_state(self) -> InnerRobotState:
        if self._data is None:
            return super()._get_state()
        q, dq = self._data.qpos[self._q], self._data.qvel[self._dof]
        return InnerRobotState(tuple(q.tolist()), tuple(dq.tolist()), tuple(self._applied_torques.tolist()))

    def _torque_control(self, torques: np.ndarray) -> None:
        self._applied_torques = torques.clip(self._low, self._high)
        self._data.qfrc_applied[self._dof] = self._applied_torques

    def _pre_step(self) -> None:
        """The springs of `close_hand` hold the fingers."""


class ArmSimulator(MujocoSimulator):
    """`MujocoSimulator` with one `ClosedHandArm`."""

    def add_robot(self, initial_q: tuple[float, ...] = DEFAULT_INITIAL_JOINT_POS) -> ClosedHandArm:
        super().add_robot(initial_q=initial_q, initial_hand_width=0.0)
        self._robots[-1] = ClosedHandArm(initial_q=initial_q, initial_hand_width=0.0)
        return self._robots[-1]


def close_hand(model: mujoco.MjModel, prefix: str) -> None:
    """Holds the fingers together with springs: part of the physics step, where a controller costs Python time."""
    for name in ("finger_joint1", "finger_joint2"):
        joint = model.joint(prefix + name)
        model.jnt_stiffness[joint.id] = HAND_STIFFNESS
        model.dof_damping[joint.dofadr] = HAND_DAMPING
