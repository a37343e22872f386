"""What happens before an episode: the graph answers, the gate is armed, the arm goes home, the operator is warned."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from safe_policy_interfaces.msg import GateStatus

from safe_policy_core.errors import RobotUnavailableError
from safe_policy_ros.graph_link import IMAGE_TOPIC, POSE_TOPIC, STATUS_TOPIC, GraphLink
from safe_policy_ros.homing import Homing

ARM_HINT = "make sure that the arm is free to move, then call /safety_gate/arm"
ARM_GRACE = 0.3
"""[s] The answer of /safety_gate/arm may overtake the status that tells of it."""
HOMING_PERIOD = 0.05
"""[s] Between two commands on the way home."""


class Preparation:
    """Steps of a reset, in the thread that steps. `cancelled` ends each of them with `RobotUnavailableError`.

    connect_timeout, status_timeout [s]: as in `RosEnvConfig`.
    """

    def __init__(self, node: Node, graph: GraphLink, homing: Homing, cancelled: threading.Event,
                 connect_timeout: float, status_timeout: float) -> None:
        self._log, self._graph, self._homing, self._cancelled = node.get_logger(), graph, homing, cancelled
        self._connect_timeout, self._status_timeout = connect_timeout, status_timeout

    def await_graph(self) -> None:
        """Waits for a fresh message of every topic and for an armed gate."""
        deadline = time.monotonic() + self._connect_timeout
        for topic, node in ((STATUS_TOPIC, "safety_gate_node"), (POSE_TOPIC, "franka_node"),
                            (IMAGE_TOPIC, "camera_node")):
            while (entry := self._heard(topic)) is None or entry[1] > 0.5:
                if time.monotonic() > deadline:
                    raise RobotUnavailableError(f"topic {topic}: no message within "
                                                f"{self._connect_timeout:g} s; is {node} running?")
                time.sleep(0.02)
        grace = time.monotonic() + ARM_GRACE
        while self.status().state in (GateStatus.DISARMED, GateStatus.FAULT) and time.monotonic() < grace:
            time.sleep(0.01)
            self._graph.poll()
        self.require_armed()

    def status(self) -> GateStatus:
        """The gate's newest word. Raises `RobotUnavailableError` without one."""
        entry = self._graph.latest(STATUS_TOPIC)
        if entry is None:
            raise RobotUnavailableError(f"topic {STATUS_TOPIC}: no message; is safety_gate_node running?")
        return entry[0]

    def require_armed(self) -> GateStatus:
        """Raises `RobotUnavailableError` saying what to do when the gate is silent, disarmed or in FAULT."""
        entry = self._heard(STATUS_TOPIC)
        status = self.status()
        if entry is not None and entry[1] > self._status_timeout:
            raise RobotUnavailableError(f"topic {STATUS_TOPIC}: silent for {entry[1]:.1f} s; is the gate running?")
        if status.state == GateStatus.FAULT:
            raise RobotUnavailableError(f"the safety gate is in FAULT ({status.reason}): {ARM_HINT}")
        if status.state == GateStatus.DISARMED:
            raise RobotUnavailableError(f"the safety gate is DISARMED: {ARM_HINT}")
        return status

    def home(self, start: np.ndarray) -> None:
        """Drives the commanded pose, then the arm, to `start` (6,). Ends with an explicit zero twist."""
        homing = self._homing
        deadline = time.monotonic() + homing.timeout
        try:
            while True:
                command, measured = self._graph.status_vectors(self.require_armed())
                at_command = homing.commanded(command, start)
                if at_command and homing.arrived(measured, start):
                    return
                if time.monotonic() > deadline:
                    raise RobotUnavailableError(
                        f"homing: the arm is {np.linalg.norm(measured[:3] - start[:3]) * 1000:.0f} mm and the "
                        f"command {np.linalg.norm(command[:3] - start[:3]) * 1000:.0f} mm from the start after "
                        f"{homing.timeout:g} s; is something in the way, or is the operator commanding?")
                self._graph.send_twist(np.zeros(6) if at_command else homing.twist(command, start))
                self._watch("homing", HOMING_PERIOD)
        finally:
            self._graph.send_twist(np.zeros(6))

    def count_down(self, seconds: float, tell: Callable[[int], None]) -> None:
        """Waits `seconds`, telling each whole one that is left: the last moment to step back or to abort."""
        for left in range(int(np.ceil(seconds)), 0, -1):
            tell(left)
            self._log.info(f"the arm moves in {left} s")
            self._watch("countdown", min(1.0, seconds - left + 1))

    def _watch(self, doing: str, seconds: float) -> None:
        """Waits; raises when the operator aborts, the goal is cancelled or a process of the graph is lost."""
        until = time.monotonic() + seconds
        while True:
            self._graph.poll()
            self._graph.pulse()
            if self._cancelled.is_set():
                raise RobotUnavailableError(f"{doing} was cancelled")
            if self._graph.aborted:
                raise RobotUnavailableError(f"{doing} was aborted by {self._graph.aborted}")
            if lost := self._graph.presence.lost(time.monotonic()):
                self._graph.stop_gate()
                raise RobotUnavailableError(f"{doing} ended: {lost} is lost")
            if (left := until - time.monotonic()) <= 0:
                return
            time.sleep(min(left, 0.01))

    def _heard(self, topic: str) -> tuple[Any, float] | None:
        self._graph.poll()
        return self._graph.latest(topic)
