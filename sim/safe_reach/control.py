"""The Cartesian impedance law of franky's tracker, for the direct environment.

The same law with the same gains as on the arm, so that commanded motion is followed with the
same lag in both and a policy trained in one meets the dynamics of the other.
"""

from __future__ import annotations

import mujoco
import numpy as np

from safe_policy_core.geometry import Pose
from sim.safe_reach.scene import Scene

TRANSLATIONAL_STIFFNESS, TRANSLATIONAL_DAMPING = 2000.0, 110.0
"""[N/m], [Ns/m]. At 0.15 m/s the tool follows 9 mm behind the command and overshoots less than 2 mm."""
ROTATIONAL_STIFFNESS, ROTATIONAL_DAMPING = 200.0, 10.0
"""[Nm/rad], [Nms/rad]. At 100 Nm/rad joint friction leaves the tool 0.04 rad off; franky's own choice of damping
(2 sqrt(stiffness) for any inertia) would make rotations three times as slow as translations."""
_STIFFNESS = np.repeat([TRANSLATIONAL_STIFFNESS, ROTATIONAL_STIFFNESS], 3)
_DAMPING = np.repeat([TRANSLATIONAL_DAMPING, ROTATIONAL_DAMPING], 3)
POSTURE_STIFFNESS, POSTURE_DAMPING = 10.0, 6.3
"""Null space: keeps the elbow where it is [Nm/rad], [Nms/rad]."""
TORQUE_LIMITS = np.array([87.0, 87, 87, 87, 12, 12, 12])
"""[Nm]."""
IK_TOLERANCE, IK_ITERATIONS = 1e-6, 50


class ImpedanceController:
    """Joint torques that pull the tool to a target pose like a damped spring."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._jacobian = np.zeros((6, scene.model.nv))
        self._rotation = np.zeros(9)
        self._posture, self._null_space = np.zeros(7), np.zeros((7, 7))
        self._position = np.zeros(3)
        self._reference, self._bias = np.zeros(7), np.zeros(7)
        self._gains, self._state = np.zeros((7, 14)), np.zeros(14)
        # Plain slices: fancy indexing costs more than the arithmetic at this size.
        first_q, first_dof = int(scene.arm_qpos[0]), int(scene.arm_dofs[0])
        self._dof = slice(first_dof, first_dof + 7)
        # Views of MuJoCo's own arrays, which stay where they are.
        self._joints = scene.data.qpos[first_q:first_q + 7]
        self._velocities = scene.data.qvel[self._dof]
        self._gravity = scene.data.qfrc_bias[self._dof]
        self._torques = scene.data.qfrc_applied[self._dof]

    def set_target(self, pose: Pose) -> None:
        self._position = pose.position
        mujoco.mju_quat2Mat(self._rotation, pose.quaternion[[3, 0, 1, 2]])

    def hold_posture(self) -> None:
        """The null space keeps the present joint configuration."""
        self._posture = self._joints.copy()
        self.update_null_space()

    def update_null_space(self) -> None:
        """I - J^T (J J^T)^-1 J, which takes out of the posture torque what would move the tool.

        Once per control step is enough: within it the arm turns by hundredths of a radian.
        """
        jacobian = self._tool_jacobian()
        self._null_space = np.eye(7) - jacobian.T @ np.linalg.solve(jacobian @ jacobian.T, jacobian)

    def _tool_jacobian(self) -> np.ndarray:
        mujoco.mj_jacSite(self._scene.model, self._scene.data, self._jacobian[:3], self._jacobian[3:],
                          self._scene.tool_site)
        return self._jacobian[:, self._dof].copy()

    def error(self) -> np.ndarray:
        """(6,) [m, rad] target minus tool, base frame."""
        data, site = self._scene.data, self._scene.tool_site
        r = self._rotation.reshape(3, 3) @ data.site_xmat[site].reshape(3, 3).T
        error = np.empty(6)
        error[:3] = self._position - data.site_xpos[site]
        # sin(angle) * axis; equal to the rotation vector to 1% below 0.25 rad, where the lead limit keeps it.
        error[3:] = 0.5 * (r[2, 1] - r[1, 2]), 0.5 * (r[0, 2] - r[2, 0]), 0.5 * (r[1, 0] - r[0, 1])
        return error

    def linearise(self) -> None:
        """Takes in target and posture for the next gate period; call after `mj_step1`.

        The Jacobian is held meanwhile: the tool moves at most 3 mm, and a 7x7 law costs a tenth of the full one.
        """
        jacobian, null_space = self._tool_jacobian(), self._null_space
        self._reference = self._joints.copy()
        force_map = jacobian.T * _STIFFNESS
        self._gains[:, :7] = force_map @ jacobian + POSTURE_STIFFNESS * null_space
        self._gains[:, 7:] = (jacobian.T * _DAMPING) @ jacobian + POSTURE_DAMPING * null_space
        self._bias = force_map @ self.error() + POSTURE_STIFFNESS * (null_space @ (self._posture - self._reference))

    def apply(self) -> None:
        """Sets the torques of the next physics step; call between `mj_step1` and `mj_step2`."""
        state = self._state
        np.subtract(self._joints, self._reference, out=state[:7])
        state[7:] = self._velocities
        torque = self._bias - self._gains @ state
        torque += self._gravity
        np.minimum(torque, TORQUE_LIMITS, out=torque)
        np.maximum(torque, -TORQUE_LIMITS, out=self._torques)

    def solve_joints(self) -> None:
        """Puts the arm's joints where the tool is at the target (damped Gauss-Newton), at rest."""
        model, data = self._scene.model, self._scene.data
        for _ in range(IK_ITERATIONS):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            error = self.error()
            if np.abs(error).max() < IK_TOLERANCE:
                break
            jacobian = self._tool_jacobian()
            self._joints += jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), error)
        self._velocities[:] = 0
