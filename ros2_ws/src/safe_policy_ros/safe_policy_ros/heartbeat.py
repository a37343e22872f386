"""Who is alive: a beat that each process of the graph sends, and the list of those an episode cannot do without."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable

from rclpy.node import Node
from std_msgs.msg import Header

from safe_policy_core.scheduling import CAMERA_PRIORITY
from safe_policy_ros import qos
from safe_policy_ros.messages import ns_to_stamp

BEAT_PERIOD = 0.03
"""[s]"""
PATIENCE = 1.0
"""[s] A main loop that made no progress for so long hangs, and the beat stops."""
LOST_AFTER = 0.12
"""[s] Silence after which a process is lost: four beats, so that the arm is stopped within 150 ms."""
PRESENT = 0.5
"""[s] Who was heard so recently when an episode begins has to stay until its end."""


def heartbeat_topic(name: str) -> str:
    return f"/{name}/heartbeat"


class Heartbeat:
    """Beats on `heartbeat_topic(name)` in a thread of its own while `progress` is called.

    A killed or stopped process falls silent at once, a hung main loop after `PATIENCE`: a disk that takes a
    tenth of a second is no reason to stop an arm.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._beats = node.create_publisher(Header, heartbeat_topic(name), qos.COMMAND)
        self._progress = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of {name}", daemon=True)
        self._thread.start()

    def progress(self) -> None:
        """The main loop came round."""
        self._progress = time.monotonic()

    def _run(self) -> None:
        try:
            # Ahead of the process's own work, which may be learning or writing to a disk.
            os.sched_setscheduler(threading.get_native_id(), os.SCHED_FIFO, os.sched_param(CAMERA_PRIORITY))
        except PermissionError:
            self._node.get_logger().debug("heartbeat: no real-time scheduling permitted")
        while not self._closing.wait(BEAT_PERIOD):
            if time.monotonic() - self._progress < PATIENCE and self._node.context.ok():
                self._beats.publish(beat(self._node))

    def close(self) -> None:
        """Ends the thread; before the node is destroyed. May be called twice."""
        self._closing.set()
        self._thread.join(1.0)


def beat(node: Node) -> Header:
    """A heartbeat of now; `frame_id` says whose."""
    return Header(stamp=ns_to_stamp(node.get_clock().now().nanoseconds), frame_id=node.get_name())


class Presence:
    """Which processes an episode began with, and whether one of them is lost. Times are steady seconds of receipt."""

    def __init__(self, names: Iterable[str]) -> None:
        self._heard = dict.fromkeys(names, float("-inf"))
        self._needed: frozenset[str] = frozenset()

    def heard(self, name: str, received: float) -> None:
        self._heard[name] = max(self._heard[name], received)

    def begin(self, now: float) -> frozenset[str]:
        """Whoever is there now is needed from now on."""
        self._needed = frozenset(name for name, heard in self._heard.items() if now - heard < PRESENT)
        return self._needed

    def lost(self, now: float) -> str:
        """A needed process that has been silent for too long, or ""."""
        return next((name for name in sorted(self._needed) if now - self._heard[name] > LOST_AFTER), "")
