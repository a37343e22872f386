"""The teleop node's neighbours: an arm that follows every twist, and somebody who announces episodes."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import rclpy
import rclpy.clock
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from safe_policy_interfaces.msg import EpisodeState, LabelEvent
from safe_policy_ros import qos
from safe_policy_ros.messages import pose_stamped, twist_from_msg
from safe_policy_ros.spinner import Spinner
from sensor_msgs.msg import Joy

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.motion import MotionIntegrator
from sim.safe_reach import task
from tests.ros.graph import wait_for

POSE_PERIOD = 0.01
HOLD = 0.15
"""[s] As the gate: a command is followed for so long."""


class TeleopProbe:
    """Integrates the operator's commands as the gate does, and remembers them with their time of receipt."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = node = rclpy.create_node("teleop_probe", context=self.context)
        self.commands: list[tuple[float, TwistStamped]] = []
        self.joys: list[Joy] = []
        self.labels: list[LabelEvent] = []
        self._motion = MotionIntegrator(task.MOTION_LIMITS)
        self.place(task.start_pose(0))
        node.create_subscription(TwistStamped, "/teleop/delta_twist_cmds",
                                 lambda m: self.commands.append((time.monotonic(), m)), qos.COMMAND)
        node.create_subscription(Joy, "/teleop/joy", self.joys.append, qos.STATUS)
        node.create_subscription(LabelEvent, "/labels", self.labels.append, qos.LABELS)
        self._poses = node.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR)
        self._states = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        self.timer = node.create_timer(POSE_PERIOD, self._move, clock=rclpy.clock.Clock(
            clock_type=rclpy.clock.ClockType.STEADY_TIME))
        self._spinner = Spinner(node)

    def place(self, pose: Pose) -> None:
        self._motion.reset(pose)
        self.path = [pose.position]

    @property
    def position(self) -> np.ndarray:
        return self.path[-1]

    def _move(self) -> None:
        if self.commands and time.monotonic() - self.commands[-1][0] < HOLD:
            self._motion.advance(twist_from_msg(self.commands[-1][1].twist), POSE_PERIOD, self._motion.target)
        self.path.append(self._motion.target.position)
        self._poses.publish(pose_stamped(self._motion.target, time.time_ns()))

    def announce(self, phase: int, episode_id: str, operator: str = "scripted", seed: int = 0,
                 metadata: Any = None) -> None:
        self._states.publish(EpisodeState(phase=phase, episode_id=episode_id, task="original", seed=seed,
                                          operator_name=operator, metadata_json=json.dumps(metadata or {})))

    def twists(self) -> np.ndarray:
        """(N, 6) of all commands so far."""
        return np.array([twist_from_msg(m.twist) for _, m in self.commands]).reshape(-1, 6)

    def wait_for_rest(self) -> None:
        """Until nothing was commanded for a while: at rest the policy has the arm."""
        wait_for(lambda: not self.commands or time.monotonic() - self.commands[-1][0] > 0.4, 5.0, "silence at rest")

    def wait_for_teleop(self) -> None:
        wait_for(lambda: self._poses.get_subscription_count() and self._states.get_subscription_count()
                 and self.node.count_publishers("/teleop/delta_twist_cmds"), 40.0, "the teleop node")
        time.sleep(0.5)  # our side is connected; the other may need a moment longer

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
