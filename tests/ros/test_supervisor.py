"""The supervisor: lifecycle nodes come up in order or the start fails loudly; everybody's health is in one place."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from safe_policy_ros import qos
from safe_policy_ros.health import health_message
from safe_policy_ros.health_board import HealthBoard
from safe_policy_ros.spinner import Spinner

from tests.ros.graph import ARM, CONFIG, Graph, ros_graph, wait_for

pytestmark = pytest.mark.ros
START_TIMEOUT = 60.0


class Board:
    """Listens to the aggregated health."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("board", context=self._context)
        self.arrays: list[DiagnosticArray] = []
        self.tops: list[DiagnosticStatus] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics_agg", self.arrays.append, qos.STATUS)
        self.node.create_subscription(DiagnosticStatus, "/diagnostics_toplevel_state", self.tops.append, qos.STATUS)
        self._spinner = Spinner(self.node)

    def state(self, name: str) -> str:
        client = self.node.create_client(GetState, f"/{name}/get_state")
        wait_for(client.service_is_ready, START_TIMEOUT, f"{name} is there")
        return self._spinner.ask(client, GetState.Request(), 5.0, "get_state").current_state.label

    def levels(self) -> dict[str, bytes]:
        return {status.name: status.level for status in self.arrays[-1].status} if self.arrays else {}

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)


@contextlib.contextmanager
def watched(directory: Path) -> Iterator[tuple[Graph, Board]]:
    with ros_graph(directory) as graph, contextlib.closing(Board(graph.domain)) as board:
        yield graph, board


def supervisor(graph: Graph, *names: str, **parameters: Any) -> Any:
    listed = "[" + ", ".join(names) + "]"
    return graph.node("supervisor_node", managed=listed, expected=listed, **parameters)


def test_nodes_come_up_in_order_and_their_health_is_told(tmp_path: Path) -> None:
    with watched(tmp_path) as (graph, board):
        gate = graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml", autostart=False)
        arm = graph.node("franka_node", parameters=ARM, backend="fake", autostart=False)
        assert board.state("franka") == board.state("safety_gate") == "unconfigured", "they wait"
        node = supervisor(graph, "franka", "safety_gate")
        wait_for(lambda: "everything is up" in node.output or node.poll() is not None, START_TIMEOUT, "the start")
        assert node.poll() is None, node.output
        assert re.findall(r"(\w+) is active", node.output) == ["franka", "safety_gate"]
        assert board.state("franka") == board.state("safety_gate") == "active"
        wait_for(lambda: board.levels().get("/safe_policy/franka") == DiagnosticStatus.OK, 5.0, "the arm's health")
        wait_for(lambda: board.levels()["/safe_policy/safety_gate"] == DiagnosticStatus.WARN, 5.0, "a disarmed gate")
        assert board.tops[-1].name == "/safe_policy" and "safety_gate WARN: DISARMED" in board.tops[-1].message
        arm.stop()
        wait_for(lambda: board.levels()["/safe_policy/franka"] == DiagnosticStatus.STALE, 8.0, "the dead arm is stale")
        assert board.levels()["/safe_policy"] == DiagnosticStatus.STALE
        assert gate.poll() is None


def test_a_step_that_fails_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with watched(tmp_path) as (graph, board):
        graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml", autostart=False)
        arm = graph.node("franka_node", parameters=ARM, robot_ip="127.0.0.213", connect_timeout=1.0, realtime="ignore",
                         autostart=False)
        node = supervisor(graph, "franka", "safety_gate")
        assert node.wait(START_TIMEOUT) == 2
        fatal = [line for line in node.output.splitlines() if "FATAL" in line]
        assert len(fatal) == 1 and "franka: configure failed" in fatal[0] and "Traceback" not in node.output
        assert "configure failed: robot at 127.0.0.213 does not answer" in arm.output, "its own log says why"
        assert board.state("safety_gate") == "unconfigured", "what depends on it was not touched"
        assert board.state("franka") == "unconfigured", "and it may be tried again"


def test_a_node_that_is_not_there_is_named(tmp_path: Path) -> None:
    with ros_graph(tmp_path) as graph:
        node = supervisor(graph, "franka", step_timeout=1.0)
        assert node.wait(30.0) == 2
        assert "franka: not there within 1 s" in node.output


def array(name: str, level: bytes, message: str) -> DiagnosticArray:
    return health_message(name, level, message, {"x": 1.23456}, 0)


def test_the_worst_counts_and_silence_is_worse() -> None:
    board = HealthBoard(["a", "b"], stale_after=3.0)
    board.add(array("a", DiagnosticStatus.OK, "fine"), 10.0)
    top = board.summary(10.0)
    assert top.level == DiagnosticStatus.STALE and top.message == "b STALE: never heard"
    board.add(array("b", DiagnosticStatus.WARN, "slow"), 10.0)
    board.add(array("c", DiagnosticStatus.OK, "an extra node"), 10.0)
    assert board.summary(11.0).level == DiagnosticStatus.WARN and board.summary(11.0).message == "b WARN: slow"
    assert board.summary(13.5).level == DiagnosticStatus.STALE
    rows = board.array(11.0, 5).status
    assert [row.name for row in rows] == ["/safe_policy", "/safe_policy/a", "/safe_policy/b", "/safe_policy/c"]
    assert rows[1].values == [KeyValue(key="x", value="1.235")]


def test_a_node_deactivated_is_at_rest_and_starts_again(tmp_path: Path) -> None:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    with watched(tmp_path) as (graph, board):
        graph.node("franka_node", parameters=ARM, backend="fake")
        client = board.node.create_client(ChangeState, "/franka/change_state")
        poses: list[float] = []
        from geometry_msgs.msg import PoseStamped
        board.node.create_subscription(PoseStamped, "/franka/current_pose", lambda _: poses.append(time.monotonic()),
                                       qos.SENSOR)
        wait_for(lambda: len(poses) > 5, START_TIMEOUT, "poses")

        def change(transition: int) -> bool:
            request = ChangeState.Request(transition=Transition(id=transition))
            return board._spinner.wait(client.call_async(request), 5.0, "change_state").success

        assert change(Transition.TRANSITION_DEACTIVATE)
        time.sleep(0.2)
        count = len(poses)
        time.sleep(0.3)
        assert len(poses) == count, "an inactive arm tells no pose, so the gate faults"
        for transition in (Transition.TRANSITION_CLEANUP, Transition.TRANSITION_CONFIGURE,
                           Transition.TRANSITION_ACTIVATE):
            assert change(transition)
        wait_for(lambda: len(poses) > count + 5, 5.0, "poses again")
