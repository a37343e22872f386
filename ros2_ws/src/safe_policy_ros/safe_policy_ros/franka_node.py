"""The arm as a process: publishes its state at 100 Hz and follows the gate's target.

Three threads: the main one reads and publishes the state, one takes the targets and drives the tracking, whose start
and stop may take a second, and one of ROS answers services. While the arm has an error, or is
guided by hand, no pose is published: then the safety gate faults, and cannot be armed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from safe_policy_core.geometry import Pose
from safe_policy_core.scheduling import REALTIME_PRIORITY
from safe_policy_ros import health, qos
from safe_policy_ros.arm.backend import ArmBackend, ArmState
from safe_policy_ros.arm.factory import declare_arm
from safe_policy_ros.arm.report import ArmRecord, joint_message, wrench_message
from safe_policy_ros.arm.tracker import FollowConfig, TargetFollower
from safe_policy_ros.gripper_services import GripperServices
from safe_policy_ros.hand_taken import ReceiveClock, TakenByHand, Waiting, look, subscribe, take
from safe_policy_ros.managed_node import ManagedNode
from safe_policy_ros.messages import BASE_FRAME, pose_from_msg, pose_stamped, stamp_to_ns
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare
from safe_policy_ros.required_parameters import Kind, Number, declare_required

NAME = "franka"
STATE_PERIOD = 0.01
FOLLOW_PERIOD = 0.01
"""[s] The follower looks at least this often whether targets have ceased."""
REPORT_PERIOD = 1.0
SAY_AGAIN = 1.0
"""[s]."""
TARGET_TOPIC = "/franka/target_pose"
TARGET_DEPTH = 5
"""Targets that may wait: a refused one is said, even if a good one came after it."""
HINT = "set it in the parameter file (robot_bringup/config/franka.yaml)"

FOLLOW_PARAMETERS: dict[str, Kind] = {
    "target_timeout": Number(0.02, 0.5, "silence of the target after which it no longer counts [s]"),
    "release_time": Number(0.1, 2.0, "silence of the target after which the tracking ends [s]"),
    "max_step": Number(0.005, 0.05, "largest step between two targets, and from the arm to the first [m]"),
    "max_turn": Number(0.02, 0.5, "largest turn between two targets, and from the arm to the first [rad]")}


class FrankaNode(ManagedNode):
    """Publishes /franka/{current_pose,joint_states,external_wrench}; follows /franka/target_pose.

    Configured, the arm has its settings and is not touched further; active, its state is published and targets move
    it; deactivated, it is brought to rest.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        self._backend = declare(self, "backend", "franky", "franky (libfranka: a real arm or the FCI simulator), "
                                "ros2_control or fake")
        self._robot_timeout = declare(self, "robot_timeout", 1.0, "silence of the arm that ends the node [s]", 0.1,
                                      10.0)
        self._connect = declare_arm(self._backend, self)
        self._gripper = GripperServices(self, self._backend)
        self._follow_config = FollowConfig(**declare_required(self, FOLLOW_PARAMETERS, HINT))
        if not self._follow_config.target_timeout < self._follow_config.release_time:
            raise ConfigurationError(f"parameter release_time: expected more than target_timeout, which is "
                                     f"{self._follow_config.target_timeout} s, got "
                                     f"{self._follow_config.release_time} s")
        self._arm: ArmBackend | None = None
        self._arm_lock = threading.Lock()
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self.start_if_told()

    # Lifecycle

    def configure(self) -> None:
        self._arm = self._connect()
        self._settings: Mapping[str, float | str] = self._arm.settings
        self._follower = TargetFollower(self._arm, self._follow_config)
        self._state: ArmState | None = None
        self._advanced_at = self._next_read = time.monotonic()
        self._record = ArmRecord()
        self._shown_fault = ""
        self._said: dict[str, float] = {}
        self._receive_clock = ReceiveClock()
        self._poses = self.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR)
        self._joints = self.create_publisher(JointState, "/franka/joint_states", qos.SENSOR)
        self._wrenches = self.create_publisher(WrenchStamped, "/franka/external_wrench", qos.SENSOR)
        self._reports = self.create_publisher(DiagnosticArray, health.TOPIC, qos.STATUS)
        self._target_subscription = subscribe(self, PoseStamped, TARGET_TOPIC, qos.COMMAND, TakenByHand(),
                                              TARGET_DEPTH)
        self._targets = Waiting(self, [self._target_subscription])
        self._recovery = self.create_service(Trigger, "/franka/recover", self._on_recover)
        self._gripper.configure()

    def activate(self) -> None:
        self._advanced_at = self._next_read = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(self._ending,), name="follow", daemon=True)
        self._thread.start()
        self.get_logger().info(f"ready, {self._backend} " + ", ".join(f"{k} {v}" for k, v in self._settings.items()))

    def deactivate(self) -> None:
        if self._thread is not None:
            self._ending.set()
            self._thread.join(3.0)
            self._thread = None
        with self._arm_lock:
            if self._arm is not None:
                self._arm.stop()

    def cleanup(self) -> None:
        if self._arm is None:
            return
        self.deactivate()
        with self._arm_lock:
            self._arm.close()
            self._arm = None
        self._gripper.cleanup()
        for publisher in (self._poses, self._joints, self._wrenches, self._reports):
            self.destroy_publisher(publisher)
        self.destroy_subscription(self._target_subscription)
        self.destroy_service(self._recovery)

    # State

    def work(self) -> bool:
        """One reading of the arm; called again and again by the main thread. Raises `RobotUnavailableError`."""
        if self._failure is not None:
            raise self._failure
        arm = self._arm
        if arm is None or not self.active:
            time.sleep(STATE_PERIOD)
            return True
        self._next_read = max(self._next_read + STATE_PERIOD, time.monotonic() - STATE_PERIOD)
        time.sleep(max(0.0, self._next_read - time.monotonic()))
        state, now = arm.read(), time.monotonic()
        if self._record.due(now, REPORT_PERIOD):
            settings = {"backend": self._backend, **self._settings, **self._gripper.values}
            self._reports.publish(self._record.report(arm.tracking, settings, self._clock_ns()))
        if self._state is not None and state.time <= self._state.time:
            # libfranka goes on handing out the last state for a while after the arm has fallen silent.
            if now - self._advanced_at > self._robot_timeout:
                raise RobotUnavailableError(f"{NAME}: the arm has been silent for {now - self._advanced_at:.1f} s")
            return True
        self._state, self._advanced_at = state, now
        self._record.add(state)
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
        now_ns = self._clock_ns()
        if not state.fault:
            self._poses.publish(pose_stamped(state.pose, now_ns))
        self._joints.publish(joint_message(state, now_ns))
        if state.wrench is not None:
            self._wrenches.publish(wrench_message(state.wrench, now_ns))

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # Targets

    def _newest_target(self) -> tuple[Pose, float] | None:
        """The last good one of those that wait, and when it was received."""
        newest = None
        # What waited while this process was held up counts as old, even though it is read only now.
        now, system_ns = look()
        for message, info in take(self._target_subscription):
            if message.header.frame_id != BASE_FRAME:
                self._warn("frame", f"{TARGET_TOPIC}: expected frame {BASE_FRAME}, got {message.header.frame_id!r}")
                continue
            try:
                pose = pose_from_msg(message.pose)
            except ValueError as error:
                self._warn("pose", f"{TARGET_TOPIC}: {error}")
                continue
            received = self._receive_clock.received(info["received_timestamp"], now, system_ns)
            # To a process that was stopped everything that was sent meanwhile comes when it wakes up; the stamp tells.
            age = (self._clock_ns() - stamp_to_ns(message.header.stamp)) * 1e-9
            newest = pose, min(received, now - age)
        self._receive_clock.looked(now)
        return newest

    def _warn(self, kind: str, line: str) -> None:
        """For the log and the diagnostics; a refusal may come a hundred times a second."""
        self._record.event(line)
        now = time.monotonic()
        if now - self._said.get(kind, -np.inf) > SAY_AGAIN:
            self._said[kind] = now
            self.get_logger().warning(line)

    def _follow(self, ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                self._targets.wait(FOLLOW_PERIOD)
                self._follow_once(self._newest_target())
            except Exception as error:  # of any kind: the main thread ends the process with it, which stops the arm
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
                self._record.target(target[1])
                self._follower.put(*target)
            line = self._follower.update(state.pose if state is not None and fresh else None, fault, now)
        if line == "tracking":
            self.get_logger().info(line)
        elif line:
            self._warn(line.partition(":")[0], line)

    def _on_recover(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._arm_lock:
            self._follower.drop()
            response.message = self._arm.recover() if self._arm is not None else "not configured"
        response.success = not response.message
        self.get_logger().info(f"recovery asked for: {response.message or 'done'}")
        return response


def _work(node: Node) -> bool:
    assert isinstance(node, FrankaNode)
    return node.work()


def main() -> None:
    sys.exit(run_node(FrankaNode, NAME, _work, priority=REALTIME_PRIORITY))


if __name__ == "__main__":
    main()
