"""Brings the lifecycle nodes up in the order in which they need each other, and keeps everybody's health together.

Each node is configured and activated before the next is touched; the first step that fails ends this process with
one line, and the launch file then stops everything. Arming the gate stays with a person.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node

from safe_policy_core.errors import RobotUnavailableError
from safe_policy_ros import health, qos
from safe_policy_ros.health_board import WORDS, HealthBoard
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare

NAME = "supervisor"
STEPS = (("configure", Transition.TRANSITION_CONFIGURE), ("activate", Transition.TRANSITION_ACTIVATE))
POLL = 0.05
REPORT_PERIOD = 1.0
STALE_AFTER = 3.0
"""[s] Health is told once a second."""


class SupervisorNode(Node):
    """Publishes /diagnostics_agg and /diagnostics_toplevel_state, the topics of ROS's diagnostic_aggregator."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._managed = list(declare(self, "managed", ["franka", "camera", "safety_gate"],
                                     "lifecycle nodes, in the order in which they are brought up"))
        expected = declare(self, "expected", ["franka", "camera", "safety_gate"], "whose health must be heard")
        self._timeout = declare(self, "step_timeout", 60.0, "until a node is there, and for each of its steps [s]", 1.0,
                                600.0)
        self._board = HealthBoard(expected, STALE_AFTER)
        self._lock = threading.Lock()
        self._aggregate = self.create_publisher(DiagnosticArray, "/diagnostics_agg", qos.STATUS)
        self._top = self.create_publisher(DiagnosticStatus, "/diagnostics_toplevel_state", qos.STATUS)
        self.create_subscription(DiagnosticArray, health.TOPIC, self._on_health, qos.STATUS)
        self._changers: dict[str, Any] = {name: self.create_client(ChangeState, f"/{name}/change_state")
                                          for name in self._managed}
        self._next_report = time.monotonic()
        self._said = ""

    def _on_health(self, message: DiagnosticArray) -> None:
        with self._lock:
            self._board.add(message, time.monotonic())

    def work(self) -> bool:
        """Brings the next node up, or reports; called again and again by the main thread."""
        if self._managed:
            name = self._managed[0]
            for step, transition in STEPS:
                self._take(name, step, transition)
            self.get_logger().info(f"{name} is active")
            self._managed.pop(0)
            if not self._managed:
                self.get_logger().info("everything is up; a person arms the gate (/safety_gate/arm)")
            return True
        time.sleep(POLL)
        if (now := time.monotonic()) >= self._next_report:
            self._next_report = now + REPORT_PERIOD
            self._report(now)
        return True

    def _take(self, name: str, step: str, transition: int) -> None:
        """Raises `RobotUnavailableError` naming the node and the step."""
        client, deadline = self._changers[name], time.monotonic() + self._timeout
        while not client.service_is_ready():
            if time.monotonic() > deadline:
                raise RobotUnavailableError(f"{name}: not there within {self._timeout:g} s; has its process ended?")
            time.sleep(POLL)
        done: list[Any] = []
        answered = threading.Event()
        request = ChangeState.Request(transition=Transition(id=transition))

        def on_answer(future: Any) -> None:
            done.append(future.result())
            answered.set()

        client.call_async(request).add_done_callback(on_answer)
        deadline = time.monotonic() + self._timeout
        while not answered.wait(POLL):
            if time.monotonic() > deadline:
                raise RobotUnavailableError(f"{name}: {step} not done within {self._timeout:g} s")
            if not client.service_is_ready():
                raise RobotUnavailableError(f"{name}: its process ended at the step {step}; its own log says why")
        if done[0] is None or not done[0].success:
            raise RobotUnavailableError(f"{name}: {step} failed; its own log says why")

    def _report(self, now: float) -> None:
        with self._lock:
            array = self._board.array(now, self.get_clock().now().nanoseconds)
        self._aggregate.publish(array)
        top = array.status[0]
        self._top.publish(top)
        level = WORDS[top.level]
        if level != self._said:
            if top.level == DiagnosticStatus.OK:
                self.get_logger().info("health OK")
            else:
                self.get_logger().warning(f"health {level}: {top.message}")
            self._said = level

    def close(self) -> None:
        """Nothing is held."""


def _work(node: Node) -> bool:
    assert isinstance(node, SupervisorNode)
    return node.work()


def main() -> None:
    sys.exit(run_node(SupervisorNode, NAME, _work))


if __name__ == "__main__":
    main()
