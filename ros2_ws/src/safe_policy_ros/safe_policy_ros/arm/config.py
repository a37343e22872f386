"""How the arm is to be driven."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_policy_core.errors import ConfigurationError

JOINTS = 7
JOINT_NAMES = tuple(f"fr3_joint{number}" for number in range(1, JOINTS + 1))


@dataclass(frozen=True)
class ArmConfig:
    """address: of the robot's control unit. realtime: whether to insist on a real-time kernel.

    translational_stiffness [N/m], rotational_stiffness [Nm/rad], translational_damping [Ns/m] and
    rotational_damping [Nms/rad] of the Cartesian impedance.
    posture_stiffness [Nm/rad], posture_damping [Nms/rad]: null space, keeps the elbow where it is.
    max_error (2,): displacement [m] and rotation [rad] at which the pulling force stops growing.
    tool_translation (3,) [m], tool_quaternion (4,): the tool in the end effector frame that Desk has set.
    load_mass [kg], load_centre (3,) [m] in the flange frame, load_inertia (9,) [kg m^2].
    collision_torque [Nm], collision_force [N, Nm]: a contact beyond these stops the arm.
    connect_timeout [s]: how long to try to reach the arm.
    """

    address: str
    realtime: bool
    translational_stiffness: float
    rotational_stiffness: float
    translational_damping: float
    rotational_damping: float
    posture_stiffness: float
    posture_damping: float
    max_error: tuple[float, float]
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
