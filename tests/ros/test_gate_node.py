"""The gate as a process: real publishers that hang, die and lie, and what the arm is told then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from safe_policy_interfaces.msg import EpisodeState, GateStatus, LabelEvent
from safe_policy_ros.messages import stamp_to_ns

from robot_bringup.environment import INSTALL
from safe_policy_core.safety.guards.publishers import MEMORY
from tests.ros.gate_probe import START_TIMEOUT, GateProbe
from tests.ros.graph import CONFIG, Graph, Process, ros_domain, ros_graph, wait_for

pytestmark = pytest.mark.ros

SCHEDULING = 0.1
"""[s] What reaction times may grow by on a machine that is busy otherwise."""
FORWARD = (0.0, 0.05, 0.0, 0.0, 0.0, 0.0)
SENDER = """
import os, sys, time
import rclpy
from geometry_msgs.msg import TwistStamped
from safe_policy_core.scheduling import come_first
from safe_policy_ros import qos
from safe_policy_ros.messages import twist_stamped
come_first()
with rclpy.init():
    node = rclpy.create_node("sender")
    publisher = node.create_publisher(TwistStamped, f"/{sys.argv[1]}/delta_twist_cmds", qos.COMMAND)
    print("ready", flush=True)
    while True:
        publisher.publish(twist_stamped([0.0, 0.05, 0, 0, 0, 0], node.get_clock().now().nanoseconds))
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Graph, Process, GateProbe]]:
    with ros_graph(tmp_path_factory.mktemp("gate")) as graph:
        gate = graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml", autostart=True)
        probe = GateProbe(graph.domain)
        try:
            yield graph, gate, probe
        finally:
            probe.close()


@pytest.fixture
def probe(rig: tuple[Graph, Process, GateProbe]) -> GateProbe:
    """The gate in HOLD, with nobody commanding and the arm answering."""
    _, gate, probe = rig
    assert gate.poll() is None, gate.output
    probe.talking = {"arm", "wrench", "camera", "runner", "monitor"}
    probe.wrench, probe.violation_probability, probe.frame_repeated = np.zeros(6), 0.1, False
    probe.phases.publish(EpisodeState(phase=EpisodeState.RUNNING))
    probe.follows = True
    if probe.status.state != GateStatus.HOLD:
        probe.arm()
    probe.measured = probe.measured if not probe.targets else probe.targets[-1][1]
    return probe


@pytest.fixture
def sender(rig: tuple[Graph, Process, GateProbe]) -> Iterator[Process]:
    """A process of its own that commands motion; /policy has no other publisher meanwhile."""
    graph, _, probe = rig

    def senders() -> int:
        return probe.node.count_publishers("/policy/delta_twist_cmds")

    probe.release_publishers()
    wait_for(lambda: senders() == 0, 15.0, "nobody commands motion")
    time.sleep(MEMORY)  # before that another sender's commands are those of a second one, and a fault
    process = graph.python("sender", "-c", SENDER, "policy")
    wait_for(lambda: "ready" in process.output and senders() == 1, START_TIMEOUT, "the sender")
    yield process
    process.signal(signal.SIGCONT)
    process.stop()
    # Discovery keeps a killed process for its lease; arming would rightly be refused until then.
    wait_for(lambda: senders() == 0, 15.0, "the sender is forgotten")


def arm_for(probe: GateProbe, sender: Process) -> None:
    """Arms while `sender` is stopped, since arming is refused while somebody asks for motion."""
    sender.signal(signal.SIGSTOP)
    time.sleep(0.3)
    probe.arm()
    sender.signal(signal.SIGCONT)
    wait_for(lambda: probe.status.state in (GateStatus.ACTIVE, GateStatus.FAULT), 2.0, "motion")
    assert probe.status.state == GateStatus.ACTIVE, f"FAULT {probe.status.reason}"
    time.sleep(0.2)


def test_nothing_reaches_the_arm_before_arming(tmp_path: Path) -> None:
    with ros_graph(tmp_path) as graph:
        graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml", autostart=True)
        probe = GateProbe(graph.domain)
        try:
            assert probe.status.state == GateStatus.DISARMED
            probe.stream(0.5, FORWARD)
            assert probe.targets == []
            ok, message = probe.call("arm")
            assert not ok and "moving_command" in message
            assert probe.status.rejected >= 5
        finally:
            probe.close()


def test_a_lifecycle_node_without_autostart_waits(tmp_path: Path) -> None:
    from lifecycle_msgs.srv import GetState
    with ros_graph(tmp_path) as graph:
        graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml")
        probe = GateProbe(graph.domain)
        try:
            client = probe.node.create_client(GetState, "/safety_gate/get_state")
            wait_for(client.service_is_ready, START_TIMEOUT, "the gate")
            state = probe.ask(client, GetState.Request(), "get_state")
            assert state.current_state.label == "unconfigured"
            assert not probe.statuses and not probe.targets
        finally:
            probe.close()


def test_commands_move_the_target_at_100_hz(probe: GateProbe) -> None:
    start = probe.targets[-1][1].position if probe.targets else probe.measured.position
    first, began = len(probe.targets), time.monotonic()
    probe.stream(1.0, (0.03, 0, 0, 0, 0, 0))
    seconds, count = time.monotonic() - began, len(probe.targets) - first
    probe.send(np.zeros(6))
    wait_for(lambda: probe.status.state == GateStatus.HOLD, 2.0, "HOLD")
    moved = probe.targets[-1][1].position - start
    assert 85 <= count / seconds <= 130, "one in each period, and one for each command"
    assert moved[0] == pytest.approx(0.03 * seconds, rel=0.25)
    assert np.abs(moved[1:]).max() < 1e-6
    assert probe.status.accepted > 0


def test_a_command_is_in_the_target_within_a_few_milliseconds(probe: GateProbe) -> None:
    """From publishing a command to receiving the next target; waiting for the gate's clock alone would take 5 ms."""
    probe.stream(0.2, (0.03, 0, 0, 0, 0, 0))
    delays = []
    for number in range(40):
        still = (0.03 if number % 2 else -0.03, 0, 0, 0, 0, 0)
        first, sent = len(probe.targets), time.monotonic()
        probe.send(still)
        wait_for(lambda first=first: len(probe.targets) > first, 1.0, "a target")
        delays.append(probe.targets[first][0] - sent)
        time.sleep(0.03 + 0.001 * (number % 10))
    probe.send(np.zeros(6))
    assert np.median(delays) < 0.01, delays


def test_the_status_tells_the_newest_command_that_the_target_holds(probe: GateProbe) -> None:
    probe.send((0.03, 0, 0, 0, 0, 0))
    for _ in range(5):
        time.sleep(0.05)
        stamp = probe.now_ns()
        probe.send((0.03, 0, 0, 0, 0, 0), stamp_ns=stamp)
        wait_for(lambda stamp=stamp: abs(stamp_to_ns(probe.status.command_stamp) - stamp) < 1000, 1.0, "its stamp")
    probe.send(np.zeros(6))


def test_a_hung_sender_is_a_fault_that_stays(probe: GateProbe, sender: Process) -> None:
    arm_for(probe, sender)
    sender.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    reaction = probe.await_fault("stale_command") - stopped
    assert 0.1 < reaction < 0.15 + 0.02 + SCHEDULING
    time.sleep(0.15)
    assert probe.target_speed(0.2) == 0
    sender.signal(signal.SIGCONT)  # it wakes and goes on, with commands that are fresh again
    time.sleep(0.5)
    assert probe.status.state == GateStatus.FAULT and probe.status.reason == "stale_command"
    assert probe.target_speed(0.2) == 0
    ok, message = probe.call("arm")
    assert not ok and "moving_command: policy" in message


def test_a_killed_sender_is_a_fault(probe: GateProbe, sender: Process) -> None:
    arm_for(probe, sender)
    sender.signal(signal.SIGKILL)
    killed = time.monotonic()
    reaction = probe.await_fault("stale_command") - killed
    assert 0.1 < reaction < 0.15 + 0.02 + SCHEDULING
    time.sleep(0.15)
    assert probe.target_speed(0.2) == 0


def test_a_second_sender_is_a_fault(probe: GateProbe, sender: Process) -> None:
    arm_for(probe, sender)
    probe.publisher("policy")
    probe.await_fault("two_publishers", timeout=3.0)
    assert "two_publishers" in probe.call("arm")[1]
    probe.release_publishers()


@pytest.mark.parametrize(("twist", "changes", "reason"), [
    ((float("nan"), 0, 0, 0, 0, 0), {}, "non_finite"), (FORWARD, {"frame": "fr3_hand_tcp"}, "wrong_frame"),
    (FORWARD, {"stamp_ns": 0}, "zero_stamp"), (FORWARD, {"ahead": 1.0}, "future_stamp"),
    (FORWARD, {"ahead": -1.0}, "old_stamp")])
def test_a_bad_command_is_refused_and_faults(probe: GateProbe, twist, changes, reason: str) -> None:
    time.sleep(0.2)  # past the time in which commands may still be in flight from before the arming
    probe.publisher()
    rejected = probe.status.rejected
    probe.send(twist, **changes)
    probe.await_fault(reason)
    assert probe.status.rejected == rejected + 1
    assert probe.target_speed(0.2) == 0
    for _ in range(3):  # as long as the sender goes on, the gate cannot be armed
        probe.send(twist, **changes)
        time.sleep(0.05)
        ok, message = probe.call("arm")
        assert not ok and reason in message


def test_a_silent_arm_is_a_fault(probe: GateProbe) -> None:
    probe.talking.remove("arm")
    silent = time.monotonic()
    reaction = probe.await_fault("stale_state") - silent
    assert 0.05 < reaction < 0.1 + 0.02 + SCHEDULING
    ok, message = probe.call("arm")
    assert not ok and "stale_state" in message
    time.sleep(0.3)
    count = len(probe.targets)
    time.sleep(0.2)
    assert len(probe.targets) == count, "without knowing where the arm is, no target is in force"


def test_an_arm_outside_the_box_is_a_fault(probe: GateProbe) -> None:
    from safe_policy_core.geometry import Pose
    probe.follows = False
    here = probe.measured.position
    for z in np.linspace(here[2], 0.075, 20):
        probe.measured = Pose(np.array([here[0], here[1], z]), probe.measured.quaternion)
        time.sleep(0.02)
    probe.await_fault("measured_workspace")
    assert "box" in probe.call("arm")[1]
    for z in np.linspace(0.075, 0.036, 20):
        probe.measured = Pose(np.array([here[0], here[1], z]), probe.measured.quaternion)
        time.sleep(0.02)
    assert probe.call("arm")[0]


@pytest.mark.parametrize(("neighbour", "reason"), [
    ("wrench", "stale_wrench"), ("camera", "camera_silent"), ("runner", "supervisor_lost"),
    ("monitor", "monitor_stale")])
def test_a_silent_neighbour_is_a_fault_while_a_policy_moves_the_arm(probe: GateProbe, neighbour: str,
                                                                    reason: str) -> None:
    probe.stream(0.3, FORWARD)
    probe.talking.remove(neighbour)
    probe.stream(0.4, FORWARD)
    probe.await_fault(reason)
    assert probe.target_speed(0.2) == 0


def test_a_frozen_camera_holds_the_policy_and_then_faults(probe: GateProbe) -> None:
    probe.stream(0.3, FORWARD)
    probe.frame_repeated = True
    first = len(probe.statuses)
    probe.stream(0.4, FORWARD)
    probe.await_fault("camera_frozen")
    assert "camera_frozen" in {status.hold for _, status in probe.statuses[first:]}


def test_the_policys_own_estimate_holds_it(probe: GateProbe) -> None:
    probe.stream(0.3, FORWARD)
    probe.violation_probability = 0.99
    probe.stream(0.2, FORWARD)
    assert (probe.status.state, probe.status.hold) == (GateStatus.HOLD, "veto_violation")
    probe.violation_probability = 0.1
    probe.stream(0.2, FORWARD)
    assert (probe.status.state, probe.status.hold) == (GateStatus.ACTIVE, "")
    probe.violation_probability = float("nan")
    probe.stream(0.1, FORWARD)
    probe.await_fault("monitor_invalid")


def test_a_push_against_the_tool_is_a_fault(probe: GateProbe) -> None:
    probe.wrench = np.array([0, -35.0, 0, 0, 0, 0])
    probe.await_fault("force")
    assert "free the arm" in probe.call("arm")[1]


def test_the_cost_budget_refuses_the_policy_until_it_is_reset(probe: GateProbe) -> None:
    budget = probe.status.cost_budget
    for value in (budget, 0.0):
        probe.labels.publish(LabelEvent(kind="cost", value=value, source="reviewer", who="test"))
    wait_for(lambda: probe.status.cost_spent >= budget, 2.0, "the cost is counted")
    probe.stream(0.3, FORWARD)
    assert (probe.status.state, probe.status.hold) == (GateStatus.HOLD, "cost_budget")
    probe.stream(0.3, FORWARD, "teleop")
    assert (probe.status.state, probe.status.source) == (GateStatus.ACTIVE, "teleop")
    probe.send(np.zeros(6), "teleop")
    ok, message = probe.call("reset_cost")
    assert ok and "forgiven" in message
    time.sleep(0.6)  # past the operator's hold
    probe.stream(0.3, FORWARD)
    assert (probe.status.state, probe.status.source) == (GateStatus.ACTIVE, "policy")
    probe.send(np.zeros(6))


def test_the_operator_stops_and_outranks(probe: GateProbe) -> None:
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        probe.send((0, 0.02, 0, 0, 0, 0), "teleop")
        probe.send((0.02, 0, 0, 0, 0, 0), "policy")
        time.sleep(0.03)
    assert probe.status.source == "teleop"
    probe.send(np.zeros(6), "policy")
    assert probe.call("stop") == (True, "stopped")
    probe.await_fault("operator_stop")
    time.sleep(0.2)
    assert probe.target_speed(0.2) == 0


def test_a_hung_gate_wakes_into_a_fault(rig: tuple[Graph, Process, GateProbe], probe: GateProbe) -> None:
    _, gate, _ = rig
    probe.stream(0.3, FORWARD)
    gate.signal(signal.SIGSTOP)
    time.sleep(0.5)
    gate.signal(signal.SIGCONT)
    wait_for(lambda: probe.status.state == GateStatus.FAULT, 3.0, "FAULT")
    assert probe.status.reason in ("stale_command", "stale_state")


def test_every_decision_is_published_with_its_count(probe: GateProbe) -> None:
    probe.send((float("nan"), 0, 0, 0, 0, 0))
    probe.await_fault("non_finite")
    probe.arm()
    probe.stream(0.3, FORWARD)  # and falls silent
    probe.await_fault("stale_command")
    probe.arm()
    probe.diagnostics.clear()
    # Not the first: its second is in part that of the fault, or of the test before, in which the process hung.
    wait_for(lambda: len(probe.diagnostics) > 1, 5.0, "diagnostics of a whole second")
    status = probe.diagnostics[-1].status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert status.name == "safety_gate"
    assert values["epoch"] == str(probe.status.epoch)
    assert int(values["fault.stale_command"]) >= 1
    assert int(values["rejected.policy.non_finite"]) >= 1
    assert int(values["ticks"]) >= 80
    assert float(values["tick_duration_mean_ms"]) < 3
    assert "command_latency_median_ms" not in values, "nobody commanded"
    probe.diagnostics.clear()
    probe.stream(1.2, np.zeros(6))
    latencies = [float(pair.value) for message in probe.diagnostics for pair in message.status[0].values
                 if pair.key == "command_latency_median_ms"]
    assert latencies and 0 < latencies[-1] < 10


@pytest.mark.usefixtures("probe")  # which waits until the gate is up
def test_torch_is_not_in_the_process(rig: tuple[Graph, Process, GateProbe]) -> None:
    graph, gate, _ = rig
    maps = Path(f"/proc/{gate.pid}/maps").read_text()
    assert "rclpy" in maps
    assert "torch" not in maps
    code = "import sys, safe_policy_ros.safety_gate_node; sys.exit('torch' in sys.modules or 'mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=graph.environment, timeout=60).returncode == 0


@pytest.mark.parametrize(("name", "value", "message"), [
    ("workspace_low", None, "workspace_low missing"), ("max_translation_speed", None, "max_translation_speed missing"),
    ("max_translation_speed", 9.0, "max_translation_speed"), ("workspace_high", [0.6, 0.1], "workspace_high"),
    ("workspace_high", [0.3, 0.1, 0.04], "workspace_low/high"), ("command_timeout", "soon", "command_timeout"),
    ("max_tilt", float("nan"), "max_tilt"), ("keep_out", [0.1, 0.2], "a multiple of 6 floats"),
    ("learned_layer", "off", "learned_layer"), ("soft_force", 40.0, "soft_force"), ("cost_budget", None,
                                                                                   "cost_budget missing")])
def test_a_gate_that_is_told_nonsense_does_not_start(tmp_path: Path, name: str, value, message: str) -> None:
    parameters = yaml.safe_load((CONFIG / "safety_gate.yaml").read_text())
    values = parameters["safety_gate"]["ros__parameters"]
    values.pop(name)
    if value is not None:
        values[name] = value
    path = tmp_path / "gate.yaml"
    path.write_text(yaml.safe_dump(parameters).replace("nan", ".nan").replace("..nan", ".nan"))
    with ros_domain() as domain:
        graph = Graph(tmp_path, domain)
        run = subprocess.run([str(INSTALL / "lib/safe_policy_ros/safety_gate_node"), "--ros-args", "--params-file",
                              str(path), "-p", "autostart:=true"], env=graph.environment, capture_output=True,
                             text=True, timeout=60)
    assert run.returncode == 2
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert len(lines) == 1 and message in lines[0], lines


def test_the_process_ends_at_once_and_cleanly(tmp_path: Path) -> None:
    with ros_graph(tmp_path) as graph:
        gate = graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml", autostart=True)
        wait_for(lambda: "ready" in gate.output, START_TIMEOUT, "the gate")
        os.kill(gate.pid, signal.SIGTERM)
        assert gate.wait(5.0) == 0
        assert "Traceback" not in gate.output
