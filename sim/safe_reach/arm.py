"""franky_sim's FR3 with little work per millisecond: its reads and writes are array slices, and what only a position or
velocity command would need is worked out when it is asked for."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
import pinocchio
from franky_sim.base_simulator import FiniteDifferenceTracker, InnerRobotState
from franky_sim.constants import DEFAULT_INITIAL_JOINT_POS, FRANKA_TORQUE_LIMITS_HIGH, FRANKA_TORQUE_LIMITS_LOW
from franky_sim.franka_robot_state import FrankaRobotState
from franky_sim.mujoco_simulator import FrankaMujocoRobot, MujocoSimulator

PERIOD = 0.001
"""Of physics and of libfranka's protocol [s]."""

HAND_STIFFNESS, HAND_DAMPING = 1000.0, 50.0
"""Of each closed finger [N/m], [Ns/m]."""


ALWAYS_TRACKED = ("dq", "tau_J", "dtau_J", "tau_J_d")
"""Of franky_sim's tracked components: those whose filters must see every cycle of a torque-controlled motion."""


class _Moment:
    """The last cycle, kept in a component's place, for the components that are worked out later."""

    time, state = 0.0, None

    def finalize(self, time: float, state: InnerRobotState) -> None:
        self.time, self.state = time, state


class Derivative(FiniteDifferenceTracker):
    """franky_sim's low-pass derivative, with fewer passes over the array."""

    def update(self, t: float, current_value: np.ndarray) -> np.ndarray:
        if self._last_value is None or self._last_t is None or t - self._last_t <= 1e-6:
            return super().update(t, current_value)
        derivative = current_value - self._last_value
        derivative *= (1.0 - self._alpha) / (t - self._last_t)
        derivative += self._alpha * self._last_derivative
        self._last_derivative, self._last_value, self._last_t = derivative, current_value.copy(), t
        return derivative

    __call__ = update


class ClosedHandArm(FrankaMujocoRobot):
    """An arm whose fingers are held closed; gripper commands are accepted and have no effect.

    changes: how often its parameters (load, frames) were set.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.changes = 0
        self._moment = _Moment()
        self._components = self._tracked_state_components
        self._tracked_always = {name: self._components[name] for name in ALWAYS_TRACKED} | {"": self._moment}
        for name in ("dq", "tau_J"):
            self._components[name].observers["fd"] = Derivative()
        self._torque_only = False
        self._commanded: np.ndarray | None = None

    def _attach_to_scene(self, model: mujoco.MjModel, data: mujoco.MjData, prefix: str) -> None:
        super()._attach_to_scene(model, data, prefix)
        self._q = slice(self._qpos_addrs[0], self._qpos_addrs[0] + 7)
        self._dof = slice(self._dof_addrs[0], self._dof_addrs[0] + 7)
        self._low = np.maximum(self.torque_limit_low, FRANKA_TORQUE_LIMITS_LOW)
        self._high = np.minimum(self.torque_limit_high, FRANKA_TORQUE_LIMITS_HIGH)
        close_hand(model, prefix)

    def _get_state(self) -> InnerRobotState:
        if self._data is None:
            return super()._get_state()
        q, dq = self._data.qpos[self._q], self._data.qvel[self._dof]
        return InnerRobotState(tuple(q.tolist()), tuple(dq.tolist()), tuple(self._applied_torques.tolist()))

    def _torque_control(self, torques: np.ndarray) -> None:
        self._applied_torques = np.minimum(np.maximum(torques, self._low), self._high)
        self._data.qfrc_applied[self._dof] = self._applied_torques

    def _pre_step(self) -> None:
        """The springs of `close_hand` hold the fingers."""

    def torque_control(self, torques: Any, has_new_command: bool = True) -> None:
        self._torque_only, self._commanded = True, None
        desired = np.minimum(np.maximum(torques, FRANKA_TORQUE_LIMITS_LOW), FRANKA_TORQUE_LIMITS_HIGH)
        self._components["tau_J_d"].set(self._BaseRobot__t, desired, call_observers=has_new_command)
        model, data = self._BaseRobot__model, self._BaseRobot__data
        self._torque_control(desired + pinocchio.computeGeneralizedGravity(model, data, self._data.qpos[self._q]))

    def brake(self, torques: np.ndarray) -> None:
        """(7,) [Nm] that nobody commanded: what the arm tells as desired stays the last command's.

        A client goes on from the torque that it is told, a little in each cycle: told that of a brake, it would brake
        for a tenth of a second more, and fling an arm that has long come to rest.
        """
        commanded = self.desired_torque
        self.torque_control(torques, has_new_command=False)
        self._commanded = commanded

    def _joint_position_control(self, target_q: np.ndarray) -> None:
        super()._joint_position_control(target_q)
        self._torque_only = False  # the torque came from a position command

    def _joint_velocity_control(self, target_dq: np.ndarray) -> None:
        super()._joint_velocity_control(target_dq)
        self._torque_only = False

    def _post_step(self) -> None:
        if self._torque_only:
            self._tracked_state_components = self._tracked_always
            try:
                super()._post_step()
            finally:
                self._tracked_state_components = self._components
        else:
            self._moment.state = None
            super()._post_step()

    @property
    def state(self) -> FrankaRobotState:
        if self._moment.state is not None:
            for component in self._components.values():
                component.finalize(self._moment.time, self._moment.state)
        return super().state

    @property
    def measured(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions [rad], velocities [rad/s] and torques [Nm] of the joints (7,), gravity included."""
        return self._data.qpos[self._q], self._data.qvel[self._dof], self._applied_torques

    def tool(self) -> tuple[np.ndarray, np.ndarray]:
        """Pose (16,) column by column, and twist (6,) [m/s, rad/s], of the tool in the base's frame."""
        model, data, frame = self._BaseRobot__model, self._BaseRobot__data, self._BaseRobot__tcp_frame_id
        pinocchio.forwardKinematics(model, data, self._data.qpos[self._q], self._data.qvel[self._dof])
        pose = pinocchio.updateFramePlacement(model, data, frame).homogeneous.ravel(order="F")
        return pose, pinocchio.getFrameVelocity(model, data, frame, pinocchio.LOCAL_WORLD_ALIGNED).vector

    @property
    def time(self) -> float:
        """Of the last cycle, since the start [s]."""
        return self._moment.time

    @property
    def desired_torque(self) -> np.ndarray:
        """(7,) of the last command, without gravity [Nm]."""
        return self._components["tau_J_d"].get(self._moment.time) if self._commanded is None else self._commanded

    @property
    def torque_rate(self) -> np.ndarray:
        """(7,) filtered [Nm/s]."""
        return self._components["dtau_J"].get(self._moment.time)

    @property
    def acceleration(self) -> np.ndarray:
        """(7,) of the joints, filtered [rad/s^2]."""
        return self._components["dq"].observers["fd"].last_derivative

    def set_load(self, *arguments: Any) -> None:
        super().set_load(*arguments)
        self.changes += 1

    def set_NE_T_EE(self, ne_t_ee: tuple[float, ...]) -> None:
        super().set_NE_T_EE(ne_t_ee)
        self.changes += 1

    def set_EE_T_K(self, ee_t_k: tuple[float, ...]) -> None:
        super().set_EE_T_K(ee_t_k)
        self.changes += 1


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
