"""What the environment hears from the graph and says to it."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from safe_policy_interfaces.msg import EpisodeSaved, EpisodeState, GateStatus, LabelEvent, Monitor, Step
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from safe_policy_ros import qos
from safe_policy_ros.executed import TargetTrack
from safe_policy_ros.hand_taken import ReceiveClock, TakenByHand, Waiting, look, subscribe, take
from safe_policy_ros.heartbeat import Presence, beat, heartbeat_topic
from safe_policy_ros.messages import pose_from_msg, stamp_to_ns, twist_from_msg, twist_stamped

IMAGE_TOPIC = "/camera/color/image_raw"
POSE_TOPIC = "/franka/current_pose"
STATUS_TOPIC = "/safety_gate/status"
POLICY_TOPIC = "/policy/delta_twist_cmds"
TELEOP_TOPIC = "/teleop/delta_twist_cmds"
MONITOR_TOPIC = "/policy/monitor"
EPISODE_HEARTBEAT = "/episode/heartbeat"
COMPANIONS = ("teleop", "recorder", "fine_tuner")
"""Processes without which an episode that began with them does not go on: nobody could take over, or keep or learn
from what happens. The gate watches those that move the arm."""
WAITING = 50
"""Messages of a topic that may wait: a control period of the fastest, several times over."""
POLL_PERIOD = 0.01
"""[s] Between two looks at everything but pictures, which end the wait for them at once."""
PULSE_PERIOD = 0.02
"""[s] Between two heartbeats of a running episode."""
USUAL_FRAME_INTERVAL = 1 / 30
"""[s] Until the camera's own is known."""


@dataclass
class StepSignals:
    """What happened since the last `take_signals`.

    reward, cost: highest level of the labels. limits: what changed commands. teleop: whether the
    operator had the arm, the hold after the last motion included. human: twists the operator asked for.
    abort: who asked for the end.
    """

    reward: float = 0.0
    cost: float = 0.0
    abort: str = ""
    limits: set[str] = field(default_factory=set)
    teleop: bool = False
    human: list[np.ndarray] = field(default_factory=list)


class GraphLink:
    """Publishers, and the newest message of each topic with its time of receipt on the steady clock.

    Belongs to the thread that steps; messages are taken by hand in `poll`, so no callback competes with
    the policy for the interpreter. Only `send_twist` and `now_ns` may be called from other threads.
    companion_timeout [s]: silence of a process of COMPANIONS after which it is lost.
    """

    def __init__(self, node: Node, nominal_quaternion: np.ndarray, companion_timeout: float) -> None:
        self._node, self._nominal = node, np.asarray(nominal_quaternion, float)
        self._latest: dict[str, tuple[Any, float]] = {}
        self._levels = {"reward": 0.0, "cost": 0.0}
        self._signals = StepSignals()
        self._operator_has_arm = False
        self._track = TargetTrack()
        self._saved: dict[str, EpisodeSaved] = {}
        self._clock = ReceiveClock()
        self.presence = Presence(COMPANIONS, lost_after=companion_timeout)
        self._intervals: deque[float] = deque(maxlen=9)
        self._image_stamp = self._received = 0.0
        self._pulsed = float("-inf")
        self._monitors = node.create_publisher(Monitor, MONITOR_TOPIC, qos.COMMAND)
        self._pulses = node.create_publisher(Header, EPISODE_HEARTBEAT, qos.COMMAND)
        self._stop = node.create_client(Trigger, "/safety_gate/stop")
        self._twists = node.create_publisher(TwistStamped, POLICY_TOPIC, qos.COMMAND)
        self._states = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        self._steps = node.create_publisher(Step, "/episode/step", qos.STEPS)
        group = TakenByHand()
        topics: tuple[tuple[type, str, Any, int, Callable[[Any], None]], ...] = (
            (Image, IMAGE_TOPIC, qos.SENSOR, 1, self._on_image),
            (PoseStamped, POSE_TOPIC, qos.SENSOR, 1, lambda _: None),
            (GateStatus, STATUS_TOPIC, qos.STATUS, WAITING, self._on_status),
            (TwistStamped, TELEOP_TOPIC, qos.COMMAND, WAITING, self._on_teleop),
            (LabelEvent, "/labels", qos.LABELS, WAITING, self._on_label),
            (EpisodeSaved, "/episode/saved", qos.EPISODE_SAVED, 10, self._on_saved),
            *((Header, heartbeat_topic(name), qos.COMMAND, 1, self._beats_of(name)) for name in COMPANIONS))
        self._taps = [(topic, subscribe(node, kind, topic, profile, group, depth), handle)
                      for kind, topic, profile, depth, handle in topics]
        self._pictures = Waiting(node, [tap for topic, tap, _ in self._taps if topic == IMAGE_TOPIC])

    # Hearing

    def poll(self) -> None:
        """Takes everything that has come."""
        now, system_ns = look()
        for topic, subscription, handle in self._taps:
            for message, info in take(subscription):
                self._received = self._clock.received(info["received_timestamp"], now, system_ns)
                self._latest[topic] = message, self._received
                handle(message)
        self._clock.looked(now)

    def wait(self, seconds: float) -> None:
        """Until a picture waits to be polled, at most `seconds`."""
        self._pictures.wait(seconds)

    def _beats_of(self, name: str) -> Callable[[Any], None]:
        return lambda message: self.presence.heard(name, message.frame_id, self._received)

    def _on_image(self, message: Image) -> None:
        stamp = stamp_to_ns(message.header.stamp) * 1e-9
        if stamp > self._image_stamp > 0:
            self._intervals.append(stamp - self._image_stamp)
        self._image_stamp = stamp

    def _on_status(self, message: GateStatus) -> None:
        self._signals.limits.update(message.limits)
        if message.source:
            # During the hold after the operator's last motion nobody commands: the arm is still the operator's.
            self._operator_has_arm = message.source == "teleop"
        self._signals.teleop |= self._operator_has_arm
        if message.epoch:  # before the first arming there is no target
            target = pose_from_msg(message.target).to_vector(self._nominal)
            self._track.append(stamp_to_ns(message.header.stamp) * 1e-9, target)

    def _on_teleop(self, message: TwistStamped) -> None:
        self._signals.human.append(twist_from_msg(message.twist))

    def _on_label(self, message: LabelEvent) -> None:
        if message.kind in self._levels:
            self._levels[message.kind] = message.value
            setattr(self._signals, message.kind, max(getattr(self._signals, message.kind), message.value))
        elif message.kind == "abort" and message.value:
            self._signals.abort = message.who or message.source

    def _on_saved(self, message: EpisodeSaved) -> None:
        self._saved[message.episode_id] = message

    # What was heard

    def latest(self, topic: str) -> tuple[Any, float] | None:
        """(message, seconds since it was received) as of the last `poll`, or None."""
        entry = self._latest.get(topic)
        return None if entry is None else (entry[0], time.monotonic() - entry[1])

    @property
    def aborted(self) -> str:
        """Who asked for the end since the last `take_signals`, or ""."""
        return self._signals.abort

    def image_arrival(self, than_ns: int) -> float | None:
        """When (monotonic s) the newest image came, if it was captured after `than_ns`; as of the last `poll`."""
        entry = self._latest.get(IMAGE_TOPIC)
        return entry[1] if entry and stamp_to_ns(entry[0].header.stamp) > than_ns else None

    def frame_interval(self) -> float:
        """[s] Median between the stamps of the last pictures."""
        return statistics.median(self._intervals) if self._intervals else USUAL_FRAME_INTERVAL

    def newer_image(self, than_ns: int, until: float) -> Image | None:
        """The newest image captured after `than_ns`; waits until `until` (monotonic s) for one, else None."""
        while True:
            self.poll()
            entry = self._latest.get(IMAGE_TOPIC)
            if entry and stamp_to_ns(entry[0].header.stamp) > than_ns:
                return entry[0]
            if time.monotonic() >= until:
                return None
            self.pulse()
            self.wait(POLL_PERIOD)

    def pose_vector(self) -> tuple[np.ndarray, float] | None:
        """((6,) measured pose, seconds since it was received), or None."""
        entry = self.latest(POSE_TOPIC)
        return None if entry is None else (pose_from_msg(entry[0].pose).to_vector(self._nominal), entry[1])

    def status_vectors(self, status: GateStatus) -> tuple[np.ndarray, np.ndarray]:
        """(6,) commanded and (6,) measured pose of a status."""
        return (pose_from_msg(status.target).to_vector(self._nominal),
                pose_from_msg(status.measured).to_vector(self._nominal))

    def executed_action(self, sent_ns: int, scale: np.ndarray) -> np.ndarray:
        """What the command of `sent_ns` moves, see `TargetTrack.executed_action`."""
        return self._track.executed_action(sent_ns * 1e-9, scale)

    def take_signals(self) -> StepSignals:
        """Hands over what accumulated, and starts anew from the present levels."""
        signals = self._signals
        self._signals = StepSignals(reward=self._levels["reward"], cost=self._levels["cost"])
        return signals

    def forget(self) -> None:
        """Labels and motion of the last scene mean nothing in the next."""
        self.poll()
        self._track.begin()
        self._levels = dict.fromkeys(self._levels, 0.0)
        self._signals, self._operator_has_arm = StepSignals(), False

    def saved(self, episode_id: str, timeout: float) -> EpisodeSaved | None:
        """The recorder's receipt, or None after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self.poll()
            if (receipt := self._saved.pop(episode_id, None)) is not None or time.monotonic() >= deadline:
                return receipt
            time.sleep(0.02)

    # Speaking

    def now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def send_twist(self, twist: np.ndarray, monitor: Monitor | None = None) -> int:
        """Publishes (6,) [m/s, rad/s] stamped now; returns the stamp [ns]. The monitor gets the same stamp."""
        now = self.now_ns()
        command = twist_stamped(twist, now)
        if monitor is not None:
            # First, so that the gate knows what to think of the command when it comes.
            monitor.header = command.header
            self._monitors.publish(monitor)
        self._twists.publish(command)
        return now

    def pulse(self) -> None:
        """The running episode's heartbeat, at most every `PULSE_PERIOD`. Called by the loop that steps and by nobody
        else: when that loop hangs, the heartbeat must cease."""
        now = time.monotonic()
        if now - self._pulsed >= PULSE_PERIOD:
            self._pulsed = now
            self._pulses.publish(beat(self._node))

    def stop_gate(self) -> None:
        """Asks the gate for a latched stop, without waiting for its answer."""
        if self._stop.service_is_ready():
            self._stop.call_async(Trigger.Request())

    def publish_state(self, state: EpisodeState) -> None:
        self._states.publish(state)

    def publish_step(self, step: Step) -> None:
        self._steps.publish(step)
