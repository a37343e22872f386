"""What the gate hears of the graph, and which part of it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from safe_policy_interfaces.msg import EpisodeState, FrameStatus, LabelEvent, Monitor
from std_msgs.msg import Header

from safe_policy_core.safety.commands import POLICY, TELEOP, Command
from safe_policy_core.safety.gate import SafetyGate
from safe_policy_ros import qos
from safe_policy_ros.hand_taken import ReceiveClock, TakenByHand, Waiting, look, subscribe, take
from safe_policy_ros.messages import pose_from_msg, stamp_to_ns, twist_from_msg

TARGET_TOPIC = "/franka/target_pose"
DEPTH = 20
"""Messages of a channel that may wait for a tick: a bad one must not be overwritten by the good one after it."""
Tell = Callable[[SafetyGate, Any, float, float], None]
"""(gate, message, steady time of receipt, ROS clock now)."""


@dataclass(frozen=True)
class Channel:
    """exclusive: two publishers are a fault. urgent: does not wait for the gate's clock."""

    kind: type
    topic: str
    profile: QoSProfile
    tell: Tell
    exclusive: bool = True
    urgent: bool = False


def _seconds(header: Header) -> float:
    return stamp_to_ns(header.stamp) * 1e-9


def _command(source: str) -> Tell:
    def tell(gate: SafetyGate, message: TwistStamped, received: float, clock: float) -> None:
        command = Command(twist_from_msg(message.twist), message.header.frame_id, _seconds(message.header))
        gate.command(source, command, received, clock)

    return tell


def _pose(gate: SafetyGate, message: PoseStamped, received: float, clock: float) -> None:
    try:
        pose = pose_from_msg(message.pose)
    except ValueError:
        pose = None
    gate.measurement(pose, message.header.frame_id, _seconds(message.header), received)


def _wrench(gate: SafetyGate, message: WrenchStamped, received: float, clock: float) -> None:
    f, t = message.wrench.force, message.wrench.torque
    gate.force.measured(np.array([f.x, f.y, f.z, t.x, t.y, t.z]), received)


def _frame(gate: SafetyGate, message: FrameStatus, received: float, clock: float) -> None:
    gate.camera.frame(_seconds(message.header), message.sequence, message.repeated, received)


def _estimate(gate: SafetyGate, message: Monitor, received: float, clock: float) -> None:
    gate.learned.estimate(message.violation_probability, message.cost_value, received)


def _phase(gate: SafetyGate, message: EpisodeState, received: float, clock: float) -> None:
    gate.supervisor.announced(message.phase)


def _heartbeat(gate: SafetyGate, message: Header, received: float, clock: float) -> None:
    gate.supervisor.heartbeat(received)


def _label(gate: SafetyGate, message: LabelEvent, received: float, clock: float) -> None:
    if message.kind == "cost":
        gate.cost.label(f"{message.source}/{message.who}", message.value)


CHANNELS: tuple[Channel, ...] = (
    Channel(PoseStamped, "/franka/current_pose", qos.SENSOR, _pose),
    Channel(WrenchStamped, "/franka/external_wrench", qos.SENSOR, _wrench),
    Channel(TwistStamped, "/teleop/delta_twist_cmds", qos.COMMAND, _command(TELEOP),
            urgent=True),
    # Comes just before the command that it is about.
    Channel(Monitor, "/policy/monitor", qos.COMMAND, _estimate, urgent=True),
    Channel(TwistStamped, "/policy/delta_twist_cmds", qos.COMMAND, _command(POLICY),
            urgent=True),
    Channel(FrameStatus, "/camera/frame_status", qos.SENSOR, _frame),
    Channel(EpisodeState, "/episode/state", qos.EPISODE_STATE, _phase),
    Channel(Header, "/episode/heartbeat", qos.COMMAND, _heartbeat),
    # Sensors, operators and reviewers all label.
    Channel(LabelEvent, "/labels", qos.LABELS, _label, exclusive=False))


class GateInputs:
    """Subscriptions that are read at the gate's own rate."""

    def __init__(self, node: Node) -> None:
        self._node = node
        group = TakenByHand()
        self._taps = [(channel, subscribe(node, channel.kind, channel.topic, channel.profile, group, DEPTH))
                      for channel in CHANNELS]
        self._exclusive = [channel.topic for channel in CHANNELS if channel.exclusive] + [TARGET_TOPIC]
        self._clocks = {urgent: ReceiveClock() for urgent in (True, False)}
        self._waiting = Waiting(node, [tap for channel, tap in self._taps if channel.kind is TwistStamped])

    def wait(self, seconds: float) -> bool:
        """Until a command waits to be taken, at most `seconds`; whether one does."""
        return self._waiting.wait(seconds)

    def take(self, only_urgent: bool) -> list[tuple[float, Channel, Any, int]]:
        """(time of receipt, channel, message, sender) of what waits, of all channels or the urgent, oldest first."""
        now, system_ns = look()
        arrived = [(self._clocks[channel.urgent].received(info["received_timestamp"], now, system_ns), channel, message,
                    hash(bytes((info.get("publisher_gid") or {}).get("data", b""))))
                   for channel, subscription in self._taps if channel.urgent or not only_urgent
                   for message, info in take(subscription)]
        for urgent, clock in self._clocks.items():
            if urgent or not only_urgent:
                clock.looked(now)
        return sorted(arrived, key=lambda entry: entry[0])

    def hand_over(self, gate: SafetyGate, arrived: list[tuple[float, Channel, Any, int]], clock: float) -> list[float]:
        """Returns when the commands among them were received."""
        for received, channel, message, sender in arrived:
            if channel.exclusive:
                gate.publishers.sent(channel.topic, sender, received)
            channel.tell(gate, message, received, clock)
        return [received for received, channel, _, _ in arrived if channel.kind is TwistStamped]

    def count_publishers(self, gate: SafetyGate) -> None:
        """Asks the graph who is there, also without saying anything."""
        for topic in self._exclusive:
            gate.publishers.counted(topic, self._node.count_publishers(topic))

    def close(self) -> None:
        for _, subscription in self._taps:
            self._node.destroy_subscription(subscription)
