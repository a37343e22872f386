"""The recorder's neighbours: a process that publishes episodes as policy, camera, arm and teleop do."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from safe_policy_interfaces.msg import EpisodeSaved, EpisodeState, LabelEvent, Step
from safe_policy_ros import qos
from safe_policy_ros.messages import image_to_msg, ns_to_stamp, pose_stamped
from safe_policy_ros.spinner import Spinner
from sensor_msgs.msg import Image

from data_collection.benchmark import example_metadata
from safe_policy_core.geometry import Pose
from tests.ros.graph import wait_for

PERIOD = 0.1
POSES_PER_STEP = 10
FRAMES_PER_STEP = 3


class EpisodeProbe:
    """Publishes one episode at a time in real time and remembers what it published."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = node = rclpy.create_node("episode_probe", context=self._context)
        self.saved: list[EpisodeSaved] = []
        node.create_subscription(EpisodeSaved, "/episode/saved", self.saved.append, qos.EPISODE_SAVED)
        self._states = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        self._steps = node.create_publisher(Step, "/episode/step", qos.STEPS)
        self._images = node.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
        self._poses = node.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR)
        self._labels = node.create_publisher(LabelEvent, "/labels", qos.LABELS)
        self._spinner = Spinner(node)
        self._rng = np.random.default_rng(0)
        self.frames: dict[int, np.ndarray] = {}
        self.steps: list[Step] = []
        self.pose_stamps: list[int] = []

    def wait_for_recorder(self) -> None:
        for publisher in (self._states, self._steps, self._images, self._poses, self._labels):
            wait_for(publisher.get_subscription_count, 40.0, f"the recorder listens to {publisher.topic_name}")
        # We have found the recorder's readers; it may need a moment longer to find our writers, and what is
        # sent best-effort until then is lost. A camera runs long before its first episode.
        time.sleep(1.0)

    def wait_for_saved(self, episode_id: str, timeout: float = 10.0) -> EpisodeSaved:
        return wait_for(lambda: next((m for m in self.saved if m.episode_id == episode_id), None), timeout,
                        f"a receipt for {episode_id}")

    def state(self, phase: int, episode_id: str, directory: Path | str = "", **metadata: Any) -> None:
        self._states.publish(EpisodeState(
            phase=phase, episode_id=episode_id, task="original", seed=2**63 + 1, operator_name="probe",
            directory=str(directory), metadata_json=json.dumps(example_metadata() | metadata)))

    def play(self, episode_id: str, steps: int, directory: Path | str = "", end: bool = True) -> None:
        """Publishes an episode of `steps` steps; without `end` it stops in the middle of things."""
        self.frames, self.steps, self.pose_stamps = {}, [], []
        begin, start = time.monotonic(), time.time_ns()
        before = self._publish_frame(start)
        self.state(EpisodeState.RUNNING, episode_id, directory)
        ticks = POSES_PER_STEP * FRAMES_PER_STEP
        for index in range(steps):
            for tick in range(1, ticks + 1):
                time.sleep(max(0.0, begin + (index + tick / ticks) * PERIOD - time.monotonic()))
                if tick % FRAMES_PER_STEP == 0:
                    self._publish_pose()
                if tick % POSES_PER_STEP == 0:
                    after = self._publish_frame(time.time_ns())
            self._publish_step(index, before, after, last=end and index == steps - 1)
            before = after
        if end:
            self.state(EpisodeState.ENDED, episode_id, directory)

    def _publish_frame(self, time_ns: int) -> int:
        image = self._rng.integers(0, 255, (64, 64, 3), np.uint8)
        self.frames[time_ns] = image
        self._images.publish(image_to_msg(image, time_ns))
        return time_ns

    def _publish_pose(self) -> None:
        time_ns = time.time_ns()
        self.pose_stamps.append(time_ns)
        self._poses.publish(pose_stamped(Pose(self._rng.normal(size=3), np.array([1.0, 0, 0, 0])), time_ns))

    def _publish_step(self, index: int, before: int, after: int, last: bool) -> None:
        step = Step(index=index, reward=float(last), cost=float(index % 2), terminated=last, intervention=index > 2,
                    filter_reason="teleop" if index > 2 else "", next_stamp=ns_to_stamp(after))
        step.header.stamp = ns_to_stamp(before)
        for name in ("pose", "requested_action", "executed_action", "human_action", "next_pose"):
            setattr(step, name, self._rng.uniform(-1, 1, 6).astype(np.float32))
        self.steps.append(step)
        self._steps.publish(step)

    def label(self, kind: str, value: float) -> None:
        self._labels.publish(LabelEvent(stamp=ns_to_stamp(time.time_ns()), kind=kind, value=value, source="key"))

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
