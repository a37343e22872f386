"""Who is alive: a beat that each process of the graph sends, and the list of those an episode cannot do without."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rclpy.node import Node
from std_msgs.msg import Header

from safe_policy_core.scheduling import RECORDING_PRIORITY, thread_comes_first
from safe_policy_ros import qos
from safe_policy_ros.messages import ns_to_stamp

BEAT_PERIOD = 0.1
"""[s]"""
PATIENCE = 1.0
"""[s] A main loop that made no progress for so long hangs, and the beat stops."""
LOST_AFTER = 1.5
"""[s] Silence after which a process is lost that cannot be seen otherwise. Under full load an ordinary process was
silent for up to 0.4 s."""
PRESENT = 2.0
"""[s] Who was heard so recently when an episode begins has to stay until its end."""
HALTED = frozenset("TtZXx")
"""States of a process in /proc: stopped, traced, dead."""


def heartbeat_topic(name: str) -> str:
    return f"/{name}/heartbeat"


def process_state(pid: int) -> tuple[str, str]:
    """(state letter, start time in ticks since boot) of a process of this machine, ("X", "") for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X", ""
    fields = stat[stat.rindex(")") + 2:].split()  # the name before may hold anything
    return fields[0], fields[19]


class Heartbeat:
    """Beats on `heartbeat_topic(name)` in a thread of its own while `progress` is called.

    A beat names its process, so that a supervisor on the same machine sees a killed or stopped one without
    waiting for silence.
    """

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._identity = f"{os.getpid()} {process_state(os.getpid())[1]}"
        self._beats = node.create_publisher(Header, heartbeat_topic(name), qos.COMMAND)
        self._progress = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of {name}", daemon=True)
        self._thread.start()

    def progress(self) -> None:
        """The main loop came round."""
        self._progress = time.monotonic()

    def _run(self) -> None:
        thread_comes_first(RECORDING_PRIORITY)
        while not self._closing.wait(BEAT_PERIOD):
            if time.monotonic() - self._progress < PATIENCE and self._node.context.ok():
                self._beats.publish(beat(self._node, self._identity))

    def close(self) -> None:
        """Ends the thread; before the node is destroyed. May be called twice."""
        self._closing.set()
        self._thread.join(1.0)


def beat(node: Node, identity: str = "") -> Header:
    """A heartbeat of now; `frame_id` says whose: process number and start time."""
    return Header(stamp=ns_to_stamp(node.get_clock().now().nanoseconds), frame_id=identity)


class Presence:
    """Which processes an episode began with, and whether one of them is lost. Times are steady seconds of receipt.

    Those of this machine are seen in /proc: a killed or stopped one is known at the next look, and a slow one
    is not taken for dead. Others, and hung ones, are lost after `lost_after` [s] of silence.
    """

    def __init__(self, names: Iterable[str], look: Callable[[int], tuple[str, str]] = process_state,
                 lost_after: float = LOST_AFTER) -> None:
        self._look, self._lost_after = look, lost_after
        self._heard = dict.fromkeys(names, float("-inf"))
        self._identities = dict.fromkeys(self._heard, "")
        self._needed: dict[str, tuple[int, str] | None] = {}

    def heard(self, name: str, identity: str, received: float) -> None:
        """A beat came; identity: its `frame_id`."""
        self._heard[name] = max(self._heard[name], received)
        self._identities[name] = identity

    def begin(self, now: float) -> set[str]:
        """Whoever is there now is needed from now on."""
        self._needed = {name: self._local(self._identities[name]) for name, heard in self._heard.items()
                        if now - heard < PRESENT}
        return set(self._needed)

    def _local(self, identity: str) -> tuple[int, str] | None:
        """(process number, start time) when the process is one of this machine's."""
        pid, _, started = identity.partition(" ")
        if pid.isdecimal() and started and self._look(int(pid))[1] == started:
            return int(pid), started
        return None

    def lost(self, now: float) -> str:
        """A needed process that is dead, stopped or silent for too long, or ""."""
        for name, process in sorted(self._needed.items()):
            if now - self._heard[name] > self._lost_after:
                return name
            if process is not None:
                state, started = self._look(process[0])
                if state in HALTED or started != process[1]:
                    return name
        return ""
