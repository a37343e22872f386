"""The arm as a process: publishes its state at 100 Hz and follows the gate's target.

Three threads: the main one reads and publishes the state, one of ROS takes messages, and one
drives the tracking, whose start and stop may take a second. While the arm has an error, or is
guided by hand, no pose is published: then the safety gate faults, and cannot be armed.
"""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError, UserError
from safe_policy_core.geometry import Pose
from safe_policy_core.scheduling import REALTIME_PRIORITY
from safe_policy_ros import qos
from safe_policy_ros.arm.backend import ArmBackend, ArmState
from safe_policy_ros.arm.config import JOINT_NAMES, ArmConfig
from safe_policy_ros.arm.fake import FakeArm
from safe_policy_ros.arm.tracker import FollowConfig, TargetFollower
from safe_policy_ros.messages import BASE_FRAME, ns_to_stamp, pose_from_msg, pose_stamped
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare
from safe_policy_ros.required_parameters import Kind, Number, Numbers, declare_required

NAME = "franka"
STATE_PERIOD = 0.01
FOLLOW_PERIOD = 0.02
"""[s] The follower looks at least this often whether targets have ceased."""
SAY_AGAIN = 1.0
"""[s]."""
TARGET_TOPIC = "/franka/target_pose"
HINT = "set it in the parameter file (robot_bringup/config/franka.yaml)"

ARM_PARAMETERS: dict[str, Kind] = {
    "translational_stiffness": Number(10.0, 3000.0, "of the Cartesian impedance [N/m]"),
    "rotational_stiffness": Number(1.0, 300.0, "of the Cartesian impedance [Nm/rad]"),
    "translational_damping": Number(1.0, 300.0, "of the Cartesian impedance [Ns/m]"),
    "rotational_damping": Number(0.1, 60.0, "of the Cartesian impedance [Nms/rad]"),
    "posture_stiffness": Number(0.0, 50.0, "null space: keeps the elbow where it is [Nm/rad]"),
    "posture_damping": Number(0.0, 50.0, "null space [Nms/rad]"),
    "max_error": Numbers(2, 0.001, 0.5, "displacement [m] and rotation [rad] at which the pull stops growing"),
    "tool_translation": Numbers(3, -0.5, 0.5, "tool in the end effector frame that Desk has set [m]"),
    "tool_quaternion": Numbers(4, -1.0, 1.0, "tool in the end effector frame that Desk has set (x, y, z, w)"),
    "load_mass": Number(0.0, 3.0, "payload beyond the hand [kg]"),
    "load_centre": Numbers(3, -0.5, 0.5, "centre of mass of the payload in the flange frame [m]"),
    "load_inertia": Numbers(9, -0.1, 0.1, "inertia of the payload, column-major [kg m^2]"),
    "collision_torque": Number(5.0, 87.0, "joint torque of a contact that stops the arm [Nm]"),
    "collision_force": Number(5.0, 100.0, "force of a contact that stops the arm [N, Nm]"),
    "connect_timeout": Number(0.5, 120.0, "how long to try to reach the arm [s]")}
FOLLOW_PARAMETERS: dict[str, Kind] = {
    "target_timeout": Number(0.02, 0.5, "silence of the target after which it no longer counts [s]"),
    "release_time": Number(0.1, 2.0, "silence of the target after which the tracking ends [s]"),
    "max_step": Number(0.005, 0.05, "largest step between two targets, and from the arm to the first [m]"),
    "max_turn": Number(0.02, 0.5, "largest turn between two targets, and from the arm to the first [rad]")}


class FrankaNode(Node):
    """Publishes /franka/{current_pose,joint_states,external_wrench}; follows /franka/target_pose."""

    def __init__(self) -> None:
        super().__init__(NAME)
        backend = declare(self, "backend", "franky", "franky (libfranka: a real arm or the FCI simulator) or fake")
        address = declare(self, "robot_ip", "", "address of the robot's control unit or of the FCI simulator")
        realtime = declare(self, "realtime", "enforce", "enforce insists on a real-time kernel; ignore is for "
                           "simulators")
        if realtime not in ("enforce", "ignore"):
            raise ConfigurationError(f"parameter realtime: expected enforce or ignore, got {realtime!r}")
        self._robot_timeout = declare(self, "robot_timeout", 1.0, "silence of the arm that ends the node [s]", 0.1,
                                      10.0)
        arm_values = declare_required(self, ARM_PARAMETERS, HINT)
        follow = FollowConfig(**declare_required(self, FOLLOW_PARAMETERS, HINT))
        if not follow.target_timeout < follow.release_time:
            raise ConfigurationError(f"parameter release_time: expected more than target_timeout "
                                     f"{follow.target_timeout} s, got {follow.release_time} s")
        self._arm = make_arm(backend, address, realtime == "enforce", arm_values)
        self._follower = TargetFollower(self._arm, follow)
        self._arm_lock = threading.Lock()
        self._wake = threading.Condition()
        self._inbox: tuple[Pose, float] | None = None
        self._state: ArmState | None = None
        self._advanced_at = self._next_read = time.monotonic()
        self._shown_fault = ""
        self._said: dict[str, float] = {}
        self._failure: UserError | None = None
        self._closing = False
        self._poses = self.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR)
        self._joints = self.create_publisher(JointState, "/franka/joint_states", qos.SENSOR)
        self._wrenches = self.create_publisher(WrenchStamped, "/franka/external_wrench", qos.SENSOR)
        self.create_subscription(PoseStamped, TARGET_TOPIC, self._on_target, qos.COMMAND)
        self.create_service(Trigger, "/franka/recover", self._on_recover)
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()
        self.get_logger().info(f"ready, {backend} at {address}" if address else f"ready, {backend}")

    # State

    def work(self) -> bool:
        """One reading of the arm; called again and again by the main thread. Raises `RobotUnavailableError`."""
        if self._failure is not None:
            raise self._failure
        self._next_read = max(self._next_read + STATE_PERIOD, time.monotonic() - STATE_PERIOD)
        time.sleep(max(0.0, self._next_read - time.monotonic()))
        state, now = self._arm.read(), time.monotonic()
        if self._state is not None and state.time <= self._state.time:
            # libfranka goes on handing out the last state for a while after the arm has fallen silent.
            if now - self._advanced_at > self._robot_timeout:
                raise RobotUnavailableError(f"{NAME}: the arm has been silent for {now - self._advanced_at:.1f} s")
            return True
        self._state, self._advanced_at = state, now
        self._publish(state)
        return True

    def _publish(self, state: ArmState) -> None:
        if state.fault != self._shown_fault:
            self._shown_fault = state.fault
            if state.fault:
                self.get_logger().error(f"the arm takes no commands: {state.fault}; clear the cause, then call "
                                        "/franka/recover")
            else:
                self.get_logger().info("the arm takes commands")
        now_ns = self.get_clock().now().nanoseconds
        if not state.fault:
            self._poses.publish(pose_stamped(state.pose, now_ns))
        joints = JointState(name=JOINT_NAMES, position=state.joint_positions, velocity=state.joint_velocities,
                            effort=state.joint_efforts)
        joints.header.stamp = ns_to_stamp(now_ns)
        self._joints.publish(joints)
        wrench = WrenchStamped()
        wrench.header.stamp, wrench.header.frame_id = ns_to_stamp(now_ns), BASE_FRAME
        force, torque = wrench.wrench.force, wrench.wrench.torque
        force.x, force.y, force.z, torque.x, torque.y, torque.z = (float(v) for v in state.wrench)
        self._wrenches.publish(wrench)

    # Targets

    def _on_target(self, message: PoseStamped) -> None:
        now = time.monotonic()
        if message.header.frame_id != BASE_FRAME:
            self.get_logger().error(f"{TARGET_TOPIC}: expected frame {BASE_FRAME}, got {message.header.frame_id!r}",
                                    throttle_duration_sec=1.0)
            return
        try:
            pose = pose_from_msg(message.pose)
        except ValueError as error:
            self.get_logger().error(f"{TARGET_TOPIC}: {error}", throttle_duration_sec=1.0)
            return
        with self._wake:
            self._inbox = (pose, now)
            self._wake.notify()

    def _follow(self) -> None:
        while not self._closing:
            with self._wake:
                self._wake.wait_for(lambda: self._inbox is not None or self._closing, FOLLOW_PERIOD)
                (target, self._inbox) = (self._inbox, None)
            try:
                self._follow_once(target)
            except UserError as error:
                self._failure = error
                return

    def _follow_once(self, target: tuple[Pose, float] | None) -> None:
        now, state = time.monotonic(), self._state
        fault = state.fault if state is not None else "no state yet"
        if self.count_publishers(TARGET_TOPIC) > 1:
            fault = f"{TARGET_TOPIC} has more than one publisher"
        fresh = state is not None and now - self._advanced_at < self._robot_timeout
        with self._arm_lock:
            if target is not None:
                self._follower.put(*target)
            line = self._follower.update(state.pose if state is not None and fresh else None, fault, now)
        kind = line.partition(":")[0]
        if line and now - self._said.get(kind, -np.inf) > SAY_AGAIN:  # a refusal may come a hundred times a second
            self._said[kind] = now
            if line == "tracking":
                self.get_logger().info(line)
            else:
                self.get_logger().warning(line)

    def _on_recover(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._arm_lock:
            self._follower.drop()
            response.message = self._arm.recover()
        response.success = not response.message
        self.get_logger().info(f"recovery asked for: {response.message or 'done'}")
        return response

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(3.0)
        with self._arm_lock:
            self._arm.close()


def make_arm(backend: str, address: str, realtime: bool, values: dict[str, object]) -> ArmBackend:
    """Raises `ConfigurationError` for an unknown backend, `RobotUnavailableError` when the arm does not answer."""
    if backend == "fake":
        return FakeArm()
    if backend == "franky":
        from safe_policy_ros.arm.franky import FrankyArm  # loads libfranka, which the fake arm does without

        return FrankyArm(ArmConfig(address=address, realtime=realtime, **values))  # type: ignore[arg-type]
    raise ConfigurationError(f"parameter backend: expected franky or fake, got {backend!r}")


def _work(node: Node) -> bool:
    assert isinstance(node, FrankaNode)
    return node.work()


def main() -> None:
    sys.exit(run_node(FrankaNode, NAME, _work, priority=REALTIME_PRIORITY))


if __name__ == "__main__":
    main()
