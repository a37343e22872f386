"""Stands in for CRISP's controller and broadcasters on franka_ros2: their topics, frames and habits, no dynamics.

    python tests/ros/crisp_controller.py [NAMESPACE]

Like CRISP's it starts at rest on its own pose, ignores target_pose while that has several publishers, holds its last
target for ever, and knows no time limit.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

RATE = 250.0
TIME_CONSTANT = 0.05
NAMES = [f"fr3_joint{number}" for number in range(1, 8)]


def main() -> None:
    with rclpy.init():
        node = rclpy.create_node("cartesian_impedance_controller", namespace=sys.argv[1] if len(sys.argv) > 1 else "")
        position = target = np.array([0.5, -0.105, 0.036])

        def on_target(message: PoseStamped) -> None:
            nonlocal target
            if node.count_publishers("target_pose") == 1:
                p = message.pose.position
                target = np.array([p.x, p.y, p.z])

        node.create_subscription(PoseStamped, "target_pose", on_target, QoSProfile(depth=1))
        poses = node.create_publisher(PoseStamped, "current_pose", QoSProfile(depth=10))
        joints = node.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
        wrenches = node.create_publisher(WrenchStamped, "external_wrench_in_base_frame", QoSProfile(depth=10))
        last = time.monotonic()

        def update() -> None:
            nonlocal position, last
            now = time.monotonic()
            position = position + (1 - np.exp((last - now) / TIME_CONSTANT)) * (target - position)
            last = now
            stamp = node.get_clock().now().to_msg()
            pose = PoseStamped()
            pose.header.stamp, pose.header.frame_id = stamp, "base"
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = position.tolist()
            pose.pose.orientation.x, pose.pose.orientation.w = 1.0, 0.0
            poses.publish(pose)
            # The broadcaster names joints in an order of its own.
            state = JointState(name=NAMES[::-1], position=[0.1 * i for i in range(7)][::-1], velocity=[0.0] * 7,
                               effort=[0.0] * 7)
            state.header.stamp = stamp
            joints.publish(state)
            wrench = WrenchStamped()
            wrench.header.stamp = stamp
            wrench.wrench.force.z = -1.5
            wrenches.publish(wrench)

        node.create_timer(1 / RATE, update)
        rclpy.spin(node)


if __name__ == "__main__":
    main()
