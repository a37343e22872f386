"""Plays the policy's process towards the gate, and lies on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from rclpy.context import Context
from rclpy.serialization import serialize_message
from safe_policy_interfaces.msg import EpisodeState, Monitor
from safe_policy_ros import qos
from safe_policy_ros.messages import BASE_FRAME, ns_to_stamp, twist_stamped
from std_msgs.msg import Header

from safe_policy_core.scheduling import CONTROL_PRIORITY, come_first, step_back

PERIOD = 0.05
"""[s] Between two commands."""
SPEED = 0.12
"""[m/s]."""
TURN_AT = 0.06
"""[m] From the middle of the box, where the motion turns round."""
BEATS = 0.02


class Sender:
    """A policy that goes to and fro along y, with all that the gate wants to hear of one.

    `change` alters each command before it is sent; it may return bytes, which are sent as they are.
    """

    def __init__(self, domain: int, position: Callable[[], np.ndarray], name: str = "fault_sender") -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = node = rclpy.create_node(name, context=self._context)
        self._position = position
        self._twists = node.create_publisher(TwistStamped, "/policy/delta_twist_cmds", qos.COMMAND)
        self._monitors = node.create_publisher(Monitor, "/policy/monitor", qos.COMMAND)
        self._beats = node.create_publisher(Header, "/episode/heartbeat", qos.COMMAND)
        self._phases = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        self.change: Callable[[TwistStamped], TwistStamped | bytes] | None = None
        self.driving = self.talking = False
        self.sent: list[TwistStamped] = []
        self._direction = 1.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """An episode runs, and the arm moves from now on."""
        self._phases.publish(EpisodeState(phase=EpisodeState.RUNNING, episode_id="fault", metadata_json=
                                          '{"record": false}'))
        self.talking = self.driving = True

    def halt(self) -> None:
        """A zero command, and the episode is over."""
        self.driving, self.change = False, None
        self._twists.publish(twist_stamped(np.zeros(6), self._now()))
        self._phases.publish(EpisodeState(phase=EpisodeState.ENDED, episode_id="fault"))

    def send(self, message: TwistStamped | bytes) -> None:
        self._twists.publish(message)

    def motion(self) -> TwistStamped:
        """The next command, stamped now."""
        y = float(self._position()[1])
        if abs(y) > TURN_AT:
            self._direction = -float(np.sign(y))
        return twist_stamped([0.0, self._direction * SPEED, 0, 0, 0, 0], self._now(), BASE_FRAME)

    def _now(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def _run(self) -> None:
        come_first(CONTROL_PRIORITY)
        due = 0.0
        while not self._closing.wait(BEATS):
            header = Header(stamp=ns_to_stamp(self._now()), frame_id=BASE_FRAME)
            if self.talking:
                self._beats.publish(header)
            if not self.driving or time.monotonic() < due:
                continue
            due = time.monotonic() + PERIOD
            command: Any = self.motion()
            if self.change is None:
                self.sent = [*self.sent[-99:], command]
            else:
                command = self.change(command)
            self._monitors.publish(Monitor(header=header, violation_probability=0.1, cost_value=0.1))
            self._twists.publish(command)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(1.0)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def truncated(command: TwistStamped) -> bytes:
    """The first half of a serialized command."""
    data = serialize_message(command)
    return data[:len(data) // 2]


__all__ = ["Sender", "step_back", "truncated"]
