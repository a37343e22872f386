"""Arms by name; each declares the parameters that it needs on the node."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node

from safe_policy_core.errors import ConfigurationError
from safe_policy_ros.arm.backend import ArmBackend
from safe_policy_ros.parameters import declare
from safe_policy_ros.required_parameters import Number, declare_required

Connect = Callable[[], ArmBackend]

# Parameters are declared when the node is made, the arm is reached when it is configured. Libraries are imported
# with the arm that needs them: the others run without libfranka.

def _franky(node: Node) -> Connect:
    from safe_policy_ros.arm.config import ARM_PARAMETERS, HINT, ArmConfig
    address = declare(node, "robot_ip", "", "address of the robot's control unit or of the FCI simulator")
    realtime = declare(node, "realtime", "enforce", "enforce insists on a real-time kernel; ignore is for simulators")
    if realtime not in ("enforce", "ignore"):
        raise ConfigurationError(f"parameter realtime: expected enforce or ignore, got {realtime!r}")
    config = ArmConfig(address=address, realtime=realtime == "enforce",
                       **declare_required(node, ARM_PARAMETERS, HINT))

    def connect() -> ArmBackend:
        from safe_policy_ros.arm.franky import FrankyArm
        return FrankyArm(config)

    return connect


def _ros2_control(node: Node) -> Connect:
    from safe_policy_ros.arm.ros2_control import ControllerArm, ControllerConfig
    timeout = declare_required(node, {"connect_timeout": Number(0.5, 120.0, "how long to wait for the controller [s]")},
                               "set it in the parameter file (robot_bringup/config/franka.yaml)")["connect_timeout"]
    config = ControllerConfig(
        declare(node, "controller_namespace", "", "before target_pose, current_pose and joint_states"),
        declare(node, "controller_frame", "base", "base frame of the controller's poses; must coincide with fr3_link0"),
        declare(node, "wrench_topic", "/franka_robot_state_broadcaster/external_wrench_in_base_frame",
                "WrenchStamped on the tool in that frame, as franka_ros2 tells it; '' for none, but then the safety "
                "gate cannot be armed"), timeout)
    return lambda: ControllerArm(config, node)


def _fake(node: Node) -> Connect:
    from safe_policy_ros.arm.fake import START, FakeArm
    start = declare(node, "start_position", list(START), "where the tool begins [m]")
    if len(start) != 3:
        raise ConfigurationError(f"parameter start_position: expected 3 numbers, got {list(start)}")
    return lambda: FakeArm(tuple(start))


BACKENDS: dict[str, Callable[[Node], Connect]] = {"franky": _franky, "ros2_control": _ros2_control, "fake": _fake}


def declare_arm(name: str, node: Node) -> Connect:
    """What connects to the arm. Raises `ConfigurationError` for an unknown arm or a wrong parameter.

    The function returned raises `RobotUnavailableError` when the arm does not answer.
    """
    if name not in BACKENDS:
        raise ConfigurationError(f"parameter backend: expected {', '.join(BACKENDS)}, got {name!r}")
    return BACKENDS[name](node)
