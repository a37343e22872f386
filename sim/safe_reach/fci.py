"""franky_sim's robot interface, with the state of a torque-controlled arm written as one record.

franky_sim builds the state that goes to libfranka 1000 times a second from a tree of tracked components, a
frozen dataclass and forty small packs: half of the whole simulated arm's processor time, which the rest of the
graph then lacks on a machine with two cores. Under torque control, the mode of every motion here, and of an arm that is
held at rest, nearly all of it is the measured state again, so it is written straight into the record. Any other mode
takes franky_sim's own path.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

import numpy as np
from franky_sim import SimulationServer
from franky_sim.franka_robot_protocol import UDPCommand
from franky_sim.franka_robot_server import ControlMode, FrankaRobotServer
from franky_sim.franka_robot_state import FrankaRobotState
from franky_sim.franka_server import FrankaServer

from sim.safe_reach.arm import ClosedHandArm, Derivative

TORQUE_COMMAND = struct.Struct("<Q 304x ? ? 7d ?")
"""The part of a client's answer that a torque-controlled arm obeys: number of the state, elbow given, motion finished,
torques, torques finished."""
REQUESTS_EVERY = 5
"""Cycles between two looks for a request (TCP) while a motion runs; a control unit takes longer for one."""
GRIPPER_EVERY = 20
"""Cycles between two looks for a gripper client, as long as there is none."""

HOLD_DAMPING = np.array([450.0, 450.0, 350.0, 350.0, 40.0, 40.0, 40.0])
"""Of an arm at rest [Nms/rad]. With franky_sim's 200 for the wrist (inertia 0.08 kg m^2) the hand chatters at 500 Hz:
more than twice the inertia over 1 ms is unstable."""

STATE_RECORD = np.dtype([(name, "<f4", (size,)) for name, size in (
    ("O_T_EE", 16), ("O_T_EE_d", 16), ("F_T_EE", 16), ("EE_T_K", 16), ("F_T_NE", 16), ("NE_T_EE", 16), ("m_ee", 1),
    ("I_ee", 9), ("F_x_Cee", 3), ("m_load", 1), ("I_load", 9), ("F_x_Cload", 3), ("elbow", 2), ("elbow_d", 2),
    ("tau_J", 7), ("tau_J_d", 7), ("dtau_J", 7), ("q", 7), ("q_d", 7), ("dq", 7), ("dq_d", 7), ("ddq_d", 7),
    ("joint_contact", 7), ("cartesian_contact", 6), ("joint_collision", 7), ("cartesian_collision", 6),
    ("tau_ext_hat_filtered", 7), ("O_F_ext_hat_K", 6), ("K_F_ext_hat_K", 6), ("O_dP_EE_d", 6), ("O_ddP_O", 3),
    ("elbow_c", 2), ("delbow_c", 2), ("ddelbow_c", 2), ("O_T_EE_c", 16), ("O_dP_EE_c", 6), ("O_ddP_EE_c", 6),
    ("theta", 7), ("dtheta", 7), ("accelerometer_top", 18), ("accelerometer_bottom", 18))] + [
    ("motion_generator_mode", "u1"), ("controller_mode", "u1"), ("errors", "u1", (41,)), ("reflex_reason", "u1", (41,)),
    ("robot_mode", "u1"), ("control_command_success_rate", "<f4")])
"""What goes over the network, as `FrankaRobotState.pack_state` lays it out."""


class TorqueState:
    """The record of a torque-controlled arm, filled anew in each cycle."""

    def __init__(self, arm: ClosedHandArm, whole: FrankaRobotState) -> None:
        """whole: gives everything that stays as it is during one motion."""
        packed = whole.pack_state()
        if len(packed) != STATE_RECORD.itemsize:
            raise ValueError(f"franky_sim's state has {len(packed)} bytes, expected {STATE_RECORD.itemsize}")
        self._arm = arm
        buffer = bytearray(packed)
        self._record = np.frombuffer(buffer, STATE_RECORD)
        row = self._record[0]
        # Neighbours of one width are written at once.
        self._poses, self._pose_c = _rows(buffer, "O_T_EE", 2), row["O_T_EE_c"]
        self._twists = row["O_dP_EE_d"], row["O_dP_EE_c"]
        self._q, self._dq = _rows(buffer, "q", 2), _rows(buffer, "dq", 2)
        self._torque, self._external = row["tau_J"], row["tau_ext_hat_filtered"]
        self._torque_d, self._dtorque = row["tau_J_d"], row["dtau_J"]
        self._ddq, self._acceleration = row["ddq_d"], row["O_ddP_EE_c"]
        self._elbows, self._elbow_c = _rows(buffer, "elbow", 2), row["elbow_c"]
        self._delbow_c, self._ddelbow_c = row["delbow_c"], row["ddelbow_c"]
        self._filter = Derivative()

    def pack(self) -> bytes:
        """The record after the step just made."""
        arm = self._arm
        q, dq, torque = arm.measured
        pose, twist = arm.tool()
        acceleration = arm.acceleration
        self._poses[:] = pose
        self._pose_c[:] = pose
        for place in self._twists:
            place[:] = twist
        self._q[:], self._dq[:] = q, dq
        self._torque[:] = torque
        self._external[:] = torque
        self._torque_d[:], self._dtorque[:] = arm.desired_torque, arm.torque_rate
        self._ddq[:] = acceleration
        self._acceleration[:] = self._filter.update(arm.time, twist)
        third, fourth = float(q[2]), float(q[3])
        self._elbows[:] = third, 1.0 if fourth > 0.0 else -1.0
        self._elbow_c[:] = third, np.sign(fourth)
        # As franky_sim has it: the rates of an elbow that nobody commands are those of the third joint.
        self._delbow_c[0], self._ddelbow_c[0] = acceleration[2], dq[2]
        return self._record.tobytes()


def _rows(record: bytearray, first: str, count: int) -> np.ndarray:
    """(count, width) view of fields of one width that lie one after another in the record."""
    kind, offset = STATE_RECORD.fields[first]
    width = kind.shape[0]
    return np.frombuffer(record, "<f4", count * width, offset).reshape(count, width)


class ArmServer(FrankaRobotServer):
    """libfranka's peer for one `ClosedHandArm`."""

    robot: ClosedHandArm

    def __init__(self, *arguments: Any) -> None:
        self._held: np.ndarray | None = None
        self._state: TorqueState | None = None
        self._state_of: tuple[ControlMode, int, int] | None = None
        self._cycle = 0
        super().__init__(*arguments)

    def _setup_udp_connection(self, network_udp_port: int) -> None:
        """States leave from the arm's own address, as those of a control unit do, and are answered there: franky_sim's
        socket would send them from 127.0.0.1, and what cuts off the arm's address would not reach them."""
        super()._setup_udp_connection(network_udp_port)
        self._FrankaServer__udp_socket.close()
        states = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        states.bind((self.hostname, 0))
        states.setblocking(False)
        self._FrankaServer__udp_socket = states

    def start_motion(self, *arguments: Any) -> None:
        super().start_motion(*arguments)
        self._held, self._state_of = None, None

    def stop_motion(self, *arguments: Any, **named: Any) -> None:
        self._held = None  # where it stops is where it rests
        super().stop_motion(*arguments, **named)

    def _reset_state(self) -> None:
        self._held = None
        super()._reset_state()

    @property
    def _mode(self) -> ControlMode:
        return self._FrankaRobotServer__control_mode

    @property
    def torque_controlled(self) -> bool:
        """Whether a client's torques move the arm."""
        return self._mode is ControlMode.TORQUE

    @property
    def last_state(self) -> int:
        """Number of the last state sent; the command that answers it carries the same."""
        return self._FrankaServer__message_id - 1

    def await_datagram(self, timeout: float) -> bool:
        """Whether a command came within `timeout` [s]."""
        return bool(select.select([self._FrankaServer__udp_socket], [], [], timeout)[0])

    def hold(self, held: bool) -> None:
        """Whether a torque-controlled arm is held where it is, whatever was commanded."""
        if self.torque_controlled:
            self._held = self._position() if held and self._held is None else self._held if held else None

    def _position(self) -> np.ndarray:
        return np.array(self.robot.inner_state.q)

    def _post_process_commands(self) -> None:
        if self._mode is ControlMode.IDLE and self._held is None:
            self._held = self._position()
        if self._held is None:
            super()._post_process_commands()
            return
        arm, state = self.robot, self.robot.inner_state
        torques = arm.kp * (self._held - state.q) - HOLD_DAMPING * np.asarray(state.dq)
        if self.torque_controlled:
            arm.brake(torques)
        else:
            arm.torque_control(torques, has_new_command=False)

    def _handle_udp_command(self, command_data: bytes) -> None:
        if self.torque_controlled:
            number, _, motion_ends, *torques, torque_ends = TORQUE_COMMAND.unpack(command_data)
            if number > 0 and not (motion_ends or torque_ends):
                self._FrankaRobotServer__has_new_command = True
                self._FrankaRobotServer__current_control_command = UDPCommand(number, tau_J_d=torques)
                return
        super()._handle_udp_command(command_data)

    def _process_udp_commands(self) -> None:
        """franky_sim's, for a socket of datagrams, which come whole."""
        while self.udp_connected:
            try:
                data = self._FrankaServer__udp_socket.recv(4096)
            except BlockingIOError:
                return
            if len(data) == TORQUE_COMMAND.size:
                self._handle_udp_command(data)

    def process_commands(self) -> None:
        self._cycle += 1
        if self.torque_controlled and self._cycle % REQUESTS_EVERY:
            self._pre_process_commands()
            self._process_udp_commands()
            self._post_process_commands()
        else:
            FrankaServer.process_commands(self)
        gripper = self.gripper_server
        if gripper is not None and (gripper.tcp_connected or self._cycle % GRIPPER_EVERY == 0):
            gripper.process_commands()

    def _get_state_bytes(self) -> bytes:
        if self._mode not in (ControlMode.TORQUE, ControlMode.IDLE):
            return super()._get_state_bytes()
        of = self._mode, self.current_motion_id, self.robot.changes
        if self._state is None or of != self._state_of:
            self._state, self._state_of = TorqueState(self.robot, self.robot_state), of
        return self._state.pack()


class ArmSimulationServer(SimulationServer):
    """`SimulationServer` with one `ArmServer` for each arm."""

    def init(self) -> None:
        for robot in self.sim.robots:
            server = ArmServer(robot, self._remaining_hostname_candidates)
            server.init()
            self.robot_servers.append(server)
        self.sim.start()
