"""How libfranka is to drive the arm, as parameters without defaults."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_ros.required_parameters import Kind, Number, Numbers

JOINTS = 7
JOINT_NAMES = tuple(f"fr3_joint{number}" for number in range(1, JOINTS + 1))
HINT = "set it in the parameter file (robot_bringup/config/franka.yaml; load_*: payload_none.yaml or your own)"

ARM_PARAMETERS: dict[str, Kind] = {
    "translational_stiffness": Number(10.0, 3000.0, "of the Cartesian impedance [N/m]"),
    "rotational_stiffness": Number(1.0, 300.0, "of the Cartesian impedance [Nm/rad]"),
    "translational_damping": Number(1.0, 300.0, "of the Cartesian impedance [Ns/m]"),
    "rotational_damping": Number(0.1, 60.0, "of the Cartesian impedance [Nms/rad]"),
    "posture_stiffness": Number(0.0, 50.0, "null space: keeps the elbow where it is [Nm/rad]"),
    "posture_damping": Number(0.0, 50.0, "null space [Nms/rad]"),
    "max_error": Numbers(2, 0.001, 0.5, "displacement [m] and rotation [rad] at which the pull stops growing"),
    "max_torque_step": Number(0.1, 2.5, "largest change of a joint's torque in a cycle, before the low-pass "
                              "filter of 100 Hz, which lets 39% of it through [Nm]"),
    "tool_translation": Numbers(3, -0.5, 0.5, "tool in the end effector frame that Desk has set [m]"),
    "tool_quaternion": Numbers(4, -1.0, 1.0, "tool in the end effector frame that Desk has set (x, y, z, w)"),
    "load_mass": Number(0.0, 3.0, "payload beyond the hand [kg]"),
    "load_centre": Numbers(3, -0.5, 0.5, "centre of mass of the payload in the flange frame [m]"),
    "load_inertia": Numbers(9, -0.1, 0.1, "inertia of the payload, column-major [kg m^2]"),
    "collision_torque": Number(5.0, 87.0, "joint torque of a contact that stops the arm [Nm]"),
    "collision_force": Number(5.0, 100.0, "force of a contact that stops the arm [N, Nm]"),
    "connect_timeout": Number(0.5, 120.0, "how long to try to reach the arm [s]")}


@dataclass(frozen=True)
class ArmConfig:
    """address: of the robot's control unit. realtime: whether to insist on a real-time kernel. The others are
    described, with units and ranges, in `ARM_PARAMETERS`."""

    address: str
    realtime: bool
    translational_stiffness: float
    rotational_stiffness: float
    translational_damping: float
    rotational_damping: float
    posture_stiffness: float
    posture_damping: float
    max_error: tuple[float, float]
    max_torque_step: float
    tool_translation: tuple[float, float, float]
    tool_quaternion: tuple[float, float, float, float]
    load_mass: float
    load_centre: tuple[float, float, float]
    load_inertia: tuple[float, ...]
    collision_torque: float
    collision_force: float
    connect_timeout: float

    def __post_init__(self) -> None:
        if not self.address:
            raise ConfigurationError("parameter robot_ip: expected the robot's address, got nothing; "
                                     "give robot_ip:=ADDRESS to the launch file")
        if abs(np.linalg.norm(self.tool_quaternion) - 1) > 1e-3:
            raise ConfigurationError(f"parameter tool_quaternion: expected unit length, got {self.tool_quaternion}")
        inertia = np.array(self.load_inertia).reshape(3, 3)
        if not np.allclose(inertia, inertia.T) or np.linalg.eigvalsh(inertia).min() < -1e-9:
            raise ConfigurationError("parameter load_inertia: expected a symmetric matrix without negative "
                                     f"eigenvalues, got {self.load_inertia}")
        if not self.load_mass and (any(self.load_centre) or any(self.load_inertia)):
            raise ConfigurationError("parameter load_mass: expected more than 0 kg, because load_centre or "
                                     "load_inertia is not zero, got 0")
