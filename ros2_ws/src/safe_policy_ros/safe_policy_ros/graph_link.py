"""What the environment hears from the graph and says to it. Callbacks only store, under one lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from safe_policy_interfaces.msg import EpisodeSaved, EpisodeState, GateStatus, LabelEvent, Step
from sensor_msgs.msg import Image

from safe_policy_ros import qos
from safe_policy_ros.executed import TargetTrack
from safe_policy_ros.messages import pose_from_msg, stamp_to_ns, twist_from_msg, twist_stamped

IMAGE_TOPIC = "/camera/color/image_raw"
POSE_TOPIC = "/franka/current_pose"
STATUS_TOPIC = "/safety_gate/status"
POLICY_TOPIC = "/policy/delta_twist_cmds"
TELEOP_TOPIC = "/teleop/delta_twist_cmds"


@dataclass
class StepSignals:
    """What happened since the last `take`.

    reward, cost: highest level of the labels. limits: what changed commands. teleop: whether the
    operator's commands were passed on. human: twists the operator asked for. abort: an abort label came.
    """

    reward: float = 0.0
    cost: float = 0.0
    abort: str = ""
    limits: set[str] = field(default_factory=set)
    teleop: bool = False
    human: list[np.ndarray] = field(default_factory=list)


class GraphLink:
    """Publishers, subscriptions and the newest message of each topic with its receive time.

    Receive times are `time.monotonic()`: a step of the system clock makes nothing look fresh or stale.
    """

    def __init__(self, node: Node, nominal_quaternion: np.ndarray) -> None:
        self._node, self._nominal = node, np.asarray(nominal_quaternion, float)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._latest: dict[str, tuple[Any, float]] = {}
        self._levels = {"reward": 0.0, "cost": 0.0}
        self._signals = StepSignals()
        self._track = TargetTrack()
        self._saved: dict[str, EpisodeSaved] = {}
        self._twists = node.create_publisher(TwistStamped, POLICY_TOPIC, qos.COMMAND)
        self._states = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        self._steps = node.create_publisher(Step, "/episode/step", qos.STEPS)
        subscriptions: list[tuple[type, str, Callable[[Any], None], Any]] = [
            (Image, IMAGE_TOPIC, self._on_image, qos.SENSOR),
            (PoseStamped, POSE_TOPIC, lambda m: self._store(POSE_TOPIC, m), qos.SENSOR),
            (GateStatus, STATUS_TOPIC, self._on_status, qos.STATUS),
            (TwistStamped, TELEOP_TOPIC, self._on_teleop, qos.COMMAND),
            (LabelEvent, "/labels", self._on_label, qos.LABELS),
            (EpisodeSaved, "/episode/saved", self._on_saved, qos.EPISODE_SAVED)]
        for kind, topic, callback, profile in subscriptions:
            node.create_subscription(kind, topic, callback, profile)

    # Callbacks

    def _store(self, topic: str, message: Any) -> None:
        with self._lock:
            self._latest[topic] = (message, time.monotonic())

    def _on_image(self, message: Image) -> None:
        with self._changed:
            self._latest[IMAGE_TOPIC] = (message, time.monotonic())
            self._changed.notify_all()

    def _on_status(self, message: GateStatus) -> None:
        target = pose_from_msg(message.target).to_vector(self._nominal) if message.epoch else None
        with self._lock:
            self._latest[STATUS_TOPIC] = (message, time.monotonic())
            self._signals.limits.update(message.limits)
            self._signals.teleop |= message.source == "teleop"
            if target is not None:
                self._track.append(stamp_to_ns(message.header.stamp) * 1e-9, target)

    def _on_teleop(self, message: TwistStamped) -> None:
        with self._lock:
            self._signals.human.append(twist_from_msg(message.twist))

    def _on_label(self, message: LabelEvent) -> None:
        with self._lock:
            if message.kind in self._levels:
                self._levels[message.kind] = message.value
                setattr(self._signals, message.kind, max(getattr(self._signals, message.kind), message.value))
            elif message.kind == "abort" and message.value:
                self._signals.abort = message.who or message.source

    def _on_saved(self, message: EpisodeSaved) -> None:
        with self._changed:
            self._saved[message.episode_id] = message
            self._changed.notify_all()

    # Reading

    def latest(self, topic: str) -> tuple[Any, float] | None:
        """(message, seconds since it was received), or None."""
        with self._lock:
            entry = self._latest.get(topic)
        return None if entry is None else (entry[0], time.monotonic() - entry[1])

    def newer_image(self, than_ns: int, until: float) -> Image | None:
        """The newest image captured after `than_ns`; waits until `until` (monotonic s) for one, else None."""
        def newer() -> Image | None:
            entry = self._latest.get(IMAGE_TOPIC)
            return entry[0] if entry and stamp_to_ns(entry[0].header.stamp) > than_ns else None

        with self._changed:
            return self._changed.wait_for(newer, max(0.0, until - time.monotonic()))

    def pose_vector(self) -> tuple[np.ndarray, float] | None:
        """((6,) measured pose, seconds since it was received), or None."""
        entry = self.latest(POSE_TOPIC)
        return None if entry is None else (pose_from_msg(entry[0].pose).to_vector(self._nominal), entry[1])

    def status_vectors(self, status: GateStatus) -> tuple[np.ndarray, np.ndarray]:
        """(6,) commanded and (6,) measured pose of a status."""
        return (pose_from_msg(status.target).to_vector(self._nominal),
                pose_from_msg(status.measured).to_vector(self._nominal))

    def executed_action(self, begin_ns: int, scale: np.ndarray) -> np.ndarray:
        with self._lock:
            return self._track.executed_action(begin_ns * 1e-9, scale)

    def take(self) -> StepSignals:
        """Hands over what accumulated, and starts anew from the present levels."""
        with self._lock:
            signals = self._signals
            self._signals = StepSignals(**self._levels)
        return signals

    def forget_labels(self) -> None:
        """Levels of the last scene mean nothing in the next."""
        with self._lock:
            self._levels = dict.fromkeys(self._levels, 0.0)
            self._signals = StepSignals()

    def saved(self, episode_id: str, timeout: float) -> EpisodeSaved | None:
        """The recorder's receipt, or None after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: episode_id in self._saved, timeout)
            return self._saved.pop(episode_id, None)

    # Speaking

    def now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def send_twist(self, twist: np.ndarray) -> int:
        """Publishes (6,) [m/s, rad/s] stamped now; returns the stamp [ns]."""
        now = self.now_ns()
        self._twists.publish(twist_stamped(twist, now))
        return now

    def publish_state(self, state: EpisodeState) -> None:
        self._states.publish(state)

    def publish_step(self, step: Step) -> None:
        self._steps.publish(step)
