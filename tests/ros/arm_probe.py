"""The arm's neighbour as a test needs it: plays the gate, and listens to what the arm says."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.context import Context
from safe_policy_ros import qos
from safe_policy_ros.messages import pose_from_msg, pose_stamped
from safe_policy_ros.spinner import Spinner, wait_for_server
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from safe_policy_core.geometry import Pose
from tests.ros.graph import Prompt, wait_for

START_TIMEOUT = 90.0
"""[s] Python, ROS and MuJoCo load slowly where two cores are shared."""


class ArmProbe:
    """Plays the gate: publishes targets, listens to the arm."""

    def __init__(self, domain: int) -> None:
        self._prompt = Prompt()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = node = rclpy.create_node("arm_probe", context=self._context)
        self.poses: list[tuple[float, Pose]] = []
        self.joints: list[JointState] = []
        self.wrenches: list[WrenchStamped] = []
        node.create_subscription(PoseStamped, "/franka/current_pose", self._on_pose, qos.SENSOR)
        node.create_subscription(JointState, "/franka/joint_states", self.joints.append, qos.SENSOR)
        node.create_subscription(WrenchStamped, "/franka/external_wrench", self.wrenches.append, qos.SENSOR)
        self.diagnostics: list[DiagnosticArray] = []
        node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, qos.STATUS)
        self._targets = node.create_publisher(PoseStamped, "/franka/target_pose", qos.COMMAND)
        self._spinner = Spinner(node)

    def _on_pose(self, message: PoseStamped) -> None:
        assert message.header.frame_id == "fr3_link0"
        self.poses.append((time.monotonic(), pose_from_msg(message.pose)))

    @property
    def pose(self) -> Pose:
        wait_for(lambda: self.poses, START_TIMEOUT, "a pose of the arm")
        return self.poses[-1][1]

    def send(self, pose: Pose, frame: str = "fr3_link0") -> None:
        self._targets.publish(pose_stamped(pose, self.node.get_clock().now().nanoseconds, frame))

    def ramp(self, start: Pose, motion: tuple[float, float, float], seconds: float) -> Pose:
        """Targets at 100 Hz along a straight line; returns the last."""
        began = time.monotonic()
        while (share := (time.monotonic() - began) / seconds) < 1:
            self.send(Pose(start.position + share * np.array(motion), start.quaternion))
            time.sleep(0.01)
        end = Pose(start.position + np.array(motion), start.quaternion)
        self.send(end)
        return end

    def hold(self, pose: Pose, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(pose)
            time.sleep(0.01)

    def call(self, service: str) -> Any:
        client = self.node.create_client(Trigger, f"/franka/{service}")
        wait_for_server(client.service_is_ready, START_TIMEOUT, service)
        return self._spinner.wait(client.call_async(Trigger.Request()), 10.0, service)

    def health(self) -> tuple[bytes, str, dict[str, str]]:
        """(level, message, values) of the arm's next report."""
        self.diagnostics.clear()
        wait_for(lambda: self.diagnostics, 5.0, "diagnostics")
        status = self.diagnostics[-1].status[0]
        assert status.name == "franka"
        return status.level, status.message, {pair.key: pair.value for pair in status.values}

    def speeds(self, since: float) -> list[tuple[float, float]]:
        """(time after `since` [s], speed of the tool [m/s]) from the poses that came, over 20 ms each."""
        rows = [(t - since, pose.position) for t, pose in self.poses if t > since - 0.05]
        return [(b[0], float(np.linalg.norm(b[1] - a[1])) / (b[0] - a[0])) for a, b in zip(rows, rows[2:], strict=False)
                if b[0] > a[0]]

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._prompt.end()
