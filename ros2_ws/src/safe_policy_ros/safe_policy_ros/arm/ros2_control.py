"""The arm behind a Cartesian impedance controller of ros2_control, such as CRISP's on franka_ros2.

CRISP's names: the controller listens to `target_pose` (PoseStamped in its base frame, reliable, depth 1) and ignores
it while it has several publishers; its pose broadcaster tells `current_pose` in the frame `base_frame` ("base" in
CRISP's own configurations, which coincides with fr3_link0); the joint state broadcaster tells `joint_states`.
Stiffness, payload and collision thresholds are the controller's and the driver's own configuration.

The controller holds its last target for ever, so stopping means: the measured pose becomes the target.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState

from safe_policy_core.errors import RobotUnavailableError
from safe_policy_core.geometry import Pose
from safe_policy_ros import qos
from safe_policy_ros.arm.backend import ArmState
from safe_policy_ros.arm.config import JOINT_NAMES
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.messages import pose_from_msg, pose_stamped, stamp_to_ns

POLL = 0.02
"""[s] Between two looks for the controller."""
RECOVERY = "errors of the arm are cleared at its driver (franka_ros2: the action /action_server/error_recovery)"


@dataclass(frozen=True)
class ControllerConfig:
    """namespace: of the controller's topics, "" for none. frame: of its poses. wrench_topic: of the external wrench in
    that frame, "" where none is published. connect_timeout [s]."""

    namespace: str
    frame: str
    wrench_topic: str
    connect_timeout: float


class ControllerArm:
    """`read` may run in a thread beside the others; topics are read there, at its rate, not when they arrive."""

    def __init__(self, config: ControllerConfig, node: Node) -> None:
        self._config, self._node = config, node
        prefix = f"/{config.namespace.strip('/')}" if config.namespace.strip("/") else ""
        self._target_topic, self._pose_topic = f"{prefix}/target_pose", f"{prefix}/current_pose"
        group = TakenByHand()
        self._targets = node.create_publisher(PoseStamped, self._target_topic, qos.COMMAND)
        self._inputs = {"pose": subscribe(node, PoseStamped, self._pose_topic, qos.SENSOR, group),
                        "joints": subscribe(node, JointState, f"{prefix}/joint_states", qos.SENSOR, group)}
        if config.wrench_topic:
            self._inputs["wrench"] = subscribe(node, WrenchStamped, config.wrench_topic, qos.SENSOR, group)
        self._newest: dict[str, PoseStamped | JointState | WrenchStamped] = {}
        self._tracking = False
        try:
            self._await_controller()
        except RobotUnavailableError:
            self.close()
            raise

    def _await_controller(self) -> None:
        deadline = time.monotonic() + self._config.connect_timeout
        while self._take() < self._inputs.keys() or not self._targets.get_subscription_count():
            if time.monotonic() > deadline:
                missing = [self._inputs[name].topic_name for name in self._inputs.keys() - self._newest.keys()]
                nothing = f"nothing on {', '.join(sorted(missing))}"
                problem = nothing if missing else f"nobody reads {self._target_topic}"
                raise RobotUnavailableError(f"ros2_control: {problem} within {self._config.connect_timeout:g} s; are "
                                            "the Cartesian controller and the broadcasters active?")
            time.sleep(POLL)
        self.read()

    def _take(self) -> set[str]:
        """Reads what has come; the names of everything that ever came."""
        for name, subscription in self._inputs.items():
            for message, _ in take(subscription):
                self._newest[name] = message
        return set(self._newest)

    def read(self) -> ArmState:
        self._take()
        pose, joints, wrench = (self._newest.get(name) for name in ("pose", "joints", "wrench"))
        assert isinstance(pose, PoseStamped) and isinstance(joints, JointState)
        if pose.header.frame_id != self._config.frame:
            raise RobotUnavailableError(f"{self._pose_topic}: expected frame {self._config.frame!r}, got "
                                        f"{pose.header.frame_id!r}; set the parameter controller_frame only if that "
                                        "frame coincides with fr3_link0")
        try:
            tool = pose_from_msg(pose.pose)
        except ValueError as error:
            raise RobotUnavailableError(f"{self._pose_topic}: {error}") from error
        return ArmState(tool, *_joints(joints), None if wrench is None else _wrench(wrench),
                        stamp_to_ns(pose.header.stamp) * 1e-9, self._fault())

    def _fault(self) -> str:
        if self._node.count_publishers(self._target_topic) > 1:
            return f"{self._target_topic} has another publisher, so the controller ignores it"
        return "" if self._targets.get_subscription_count() else f"no controller reads {self._target_topic}"

    def start(self) -> None:
        self._tracking = True
        self._send(self.read().pose)

    def track(self, pose: Pose) -> None:
        if not self._tracking:
            raise RuntimeError("ControllerArm.track: start must come first")
        self._send(pose)

    def stop(self) -> None:
        if self._tracking:
            self._tracking = False
            self._send(self.read().pose)

    def _send(self, pose: Pose) -> None:
        self._targets.publish(pose_stamped(pose, self._node.get_clock().now().nanoseconds, self._config.frame))

    @property
    def tracking(self) -> bool:
        return self._tracking

    def recover(self) -> str:
        self.stop()
        return self._fault() or RECOVERY

    @property
    def settings(self) -> dict[str, float | str]:
        return {"target_topic": self._target_topic, "frame": self._config.frame}

    def close(self) -> None:
        self.stop()
        self._node.destroy_publisher(self._targets)
        for subscription in self._inputs.values():
            self._node.destroy_subscription(subscription)


def _joints(message: JointState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, velocities and efforts (7,) in the arm's order, NaN where the message has none."""
    columns = []
    for values in (message.position, message.velocity, message.effort):
        known = dict(zip(message.name, values, strict=False))
        columns.append(np.array([known.get(name, math.nan) for name in JOINT_NAMES]))
    return columns[0], columns[1], columns[2]


def _wrench(message: WrenchStamped) -> np.ndarray:
    force, torque = message.wrench.force, message.wrench.torque
    return np.array([force.x, force.y, force.z, torque.x, torque.y, torque.z])
