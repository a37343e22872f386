"""A person takes the arm from a policy in the running graph; and a process that an episode needs is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from safe_policy_interfaces.msg import EpisodeState, Monitor
from safe_policy_ros import qos
from safe_policy_ros.client import GraphClient, GraphError
from safe_policy_ros.messages import pose_from_msg, stamp_to_ns, twist_from_msg
from safe_policy_ros.spinner import Spinner
from safe_policy_ros.teleop_node import TeleopNode
from std_msgs.msg import Header

from safe_policy_core.data.episodes import read_episode
from sim.safe_reach import task
from tests.data_collection.test_spacemouse import FULL, buttons, mouse, translation
from tests.ros.graph import Prompt, wait_for
from tests.ros.learning_rig import tiny_checkpoint, write_episodes
from tests.ros.safe_reach_graph import READY_TIMEOUT, SafeReachGraph, safe_reach_graph

pytestmark = pytest.mark.ros

HOLD = 0.5
"""[s] teleop_hold of safety_gate.yaml."""
SPEED = task.MAX_TRANSLATION_STEP / 0.1
"""[m/s] Of the SpaceMouse at full displacement."""
REST = 0.003
"""[m/s]"""


class Witness:
    """Hears what the arm is told, and holds the SpaceMouse."""

    def __init__(self, domain: int) -> None:
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("witness", context=self._context)
        self.targets: list[tuple[float, np.ndarray]] = []
        self.policy: list[tuple[float, TwistStamped]] = []
        self.monitors: list[Monitor] = []
        self.beats: list[float] = []
        self.phases: list[tuple[float, int]] = []
        hear = self._node.create_subscription
        hear(PoseStamped, "/franka/target_pose", self._on_target, qos.COMMAND)
        hear(TwistStamped, "/policy/delta_twist_cmds", lambda m: self.policy.append((time.monotonic(), m)), qos.COMMAND)
        hear(Monitor, "/policy/monitor", self.monitors.append, qos.COMMAND)
        hear(Header, "/episode/heartbeat", lambda _: self.beats.append(time.monotonic()), qos.COMMAND)
        hear(EpisodeState, "/episode/state", lambda m: self.phases.append((time.monotonic(), m.phase)),
             qos.EPISODE_STATE)
        device, self.mouse = mouse(deadband=0.0)
        self._teleop = TeleopNode(device, context=self._context)
        self._spinners = [Spinner(self._node), Spinner(self._teleop)]

    def _on_target(self, message: PoseStamped) -> None:
        self.targets.append((time.monotonic(), pose_from_msg(message.pose).position))

    def push(self, report: bytearray, seconds: float, release: bytearray) -> float:
        """Reports 50 times a second, as the device sends them, then the release. Returns when it was."""
        for _ in range(round(seconds / 0.02)):
            self.mouse.reports.append(bytearray(report))
            time.sleep(0.02)
        self.mouse.reports.append(release)
        return time.monotonic()

    def motion(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (N,) and velocities (N, 3) [m/s] of the target, over 50 ms."""
        times = np.array([when for when, _ in self.targets])
        poses = np.array([position for _, position in self.targets])
        return times[5:], (poses[5:] - poses[:-5]) / (times[5:] - times[:-5])[:, None]

    def rest_after(self, when: float) -> float:
        """How long after `when` the target stood still and went on standing still for 0.3 s [s]."""
        times, velocities = self.motion()
        moving = times[(np.linalg.norm(velocities, axis=1) > REST) & (times > when)]
        return float(moving.max(initial=when) - when)

    def close(self) -> None:
        for spinner in self._spinners:
            spinner.close()
        self._teleop.close()
        self._teleop.destroy_node()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    write_episodes(folder / "data")
    return tiny_checkpoint(folder / "checkpoint", folder / "data")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[SafeReachGraph]:
    with safe_reach_graph(tmp_path_factory.mktemp("logs")) as running:
        running.start_world()
        running.nodes["policy"] = running.graph.node("policy_node", checkpoint=checkpoint)
        start_recorder(running)
        yield running


def start_recorder(graph: SafeReachGraph) -> None:
    graph.nodes["recorder"] = graph.graph.node("recorder_node", directory=graph.graph.directory / "recordings")


@pytest.fixture(scope="module")
def witness(graph: SafeReachGraph) -> Iterator[Witness]:
    prompt = Prompt()
    with contextlib.closing(Witness(graph.graph.domain)) as made:
        yield made
    prompt.end()


@pytest.fixture(scope="module")
def client(graph: SafeReachGraph, witness: Witness) -> Iterator[GraphClient]:
    with GraphClient(domain=graph.graph.domain) as connected:
        connected.wait_ready(READY_TIMEOUT)
        yield connected


class Running:
    """An episode in a thread, up to a step at which the test does something."""

    def __init__(self, client: GraphClient, seed: int, directory: Path) -> None:
        self.steps, self.result, self.error = 0, {}, ""
        if client.gate()["state"] in ("DISARMED", "FAULT"):
            client.arm()
        self._thread = threading.Thread(target=self._run, args=(client, seed, directory))
        self._thread.start()

    def _run(self, client: GraphClient, seed: int, directory: Path) -> None:
        def hear(step: dict) -> None:
            self.steps = step["step"] + 1

        try:
            self.result = client.run_episode("original", seed, "policy", directory, on_step=hear)
        except GraphError as error:
            self.error = str(error)

    def until(self, steps: int) -> None:
        wait_for(lambda: self.steps >= steps or not self._thread.is_alive(), 30.0, f"step {steps}")
        assert self._thread.is_alive(), (self.error, self.result)

    def join(self) -> dict:
        self._thread.join(60)
        assert self.result, self.error
        return self.result


def test_the_operator_outranks_the_policy_at_once_and_gives_back_without_a_jump(
        client: GraphClient, witness: Witness, tmp_path: Path) -> None:
    for name in ("targets", "policy", "monitors", "beats", "phases"):
        getattr(witness, name).clear()
    episode = Running(client, 21, tmp_path)
    episode.until(5)
    began = time.monotonic()
    released = witness.push(translation(z=-FULL), 0.1, translation())
    assert released - began < 0.2
    episode.until(6)
    began = time.monotonic()
    released = witness.push(translation(x=-FULL), 0.6, translation())  # to the left, +y
    episode.until(episode.steps + 12)
    client.label("abort", 1.0, "test")
    result = episode.join()
    assert "abort" in result["message"], result

    times, velocities = witness.motion()
    pushed = (times > began + 0.15) & (times < released - 0.02)
    np.testing.assert_allclose(np.median(velocities[pushed], axis=0), [0, SPEED, 0], atol=0.2 * SPEED)
    obeyed = times[(times > began) & (velocities[:, 1] > 0.5 * SPEED)]
    assert obeyed[0] - began < 0.12, "at once: within 50 ms of averaging, a reading and a tick"
    held = (times > released + 0.2) & (times < released + HOLD - 0.02)
    assert np.linalg.norm(velocities[held], axis=1).max() < REST, "the hold after the last motion"
    after = (times > released + HOLD + 0.1) & (times < released + HOLD + 0.6)
    assert np.linalg.norm(velocities[after], axis=1).max() > 0.1 * SPEED, "then the policy goes on"
    # A jump would be a step of the target that no speed limit allows.
    positions = np.array([position for _, position in witness.targets])
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    around = np.array([when for when, _ in witness.targets])[1:]
    handover = (around > began - 0.1) & (around < released + HOLD + 0.3)
    assert steps[handover].max() <= 0.26 * 0.02 + 1e-6, "two ticks at the gate's fastest [m]"

    recorded = read_episode(Path(result["path"]))
    human = recorded.intervention
    assert 10 <= human.sum() <= 18, "0.1 s and 0.6 s of motion, and their holds"
    assert not human[:3].any() and not human[-2:].any()
    driven = recorded.human_action[:, 1] > 0.9
    assert 4 <= driven.sum() <= 7 and human[driven].all()
    np.testing.assert_allclose(np.median(recorded.executed_action[driven], axis=0), [0, 1, 0, 0, 0, 0], atol=0.15)
    assert np.abs(recorded.policy_action[human]).max() > 0.1, "what the policy would have done is kept beside it"


def test_every_command_has_its_estimates_and_the_runner_its_heartbeat(witness: Witness) -> None:
    """Looks at the episode of the test before."""
    running = next(when for when, phase in witness.phases if phase == EpisodeState.RUNNING)
    ended = next(when for when, phase in witness.phases if phase == EpisodeState.ENDED)
    commands = [m for when, m in witness.policy if running < when < ended and twist_from_msg(m.twist).any()]
    monitored = {stamp_to_ns(m.header.stamp): m for m in witness.monitors}
    assert len(commands) > 15
    missing = [m for m in commands if stamp_to_ns(m.header.stamp) not in monitored]
    assert len(missing) <= 1, "the first may come before we noticed the announcement"
    for monitor in monitored.values():
        assert 0 <= monitor.violation_probability <= 1 and np.isfinite([monitor.value, monitor.cost_value]).all()
        assert monitor.chosen_policy
    beats = np.array([when for when in witness.beats if running < when < ended])
    assert len(beats) > 20 * (ended - running)
    assert np.diff(beats).max() < 0.12


def test_the_takeover_button_holds_the_arm(client: GraphClient, witness: Witness, tmp_path: Path) -> None:
    """The parameter `buttons` gives the fourth button to the takeover; the SpaceMouse Compact has two, so it is the
    second here."""
    witness._teleop._buttons = ["reward", "takeover"]
    witness.targets.clear()
    episode = Running(client, 22, tmp_path)
    episode.until(5)
    pressed = time.monotonic()
    released = witness.push(buttons(2), 0.8, buttons(0))
    episode.until(episode.steps + 9)
    client.label("abort", 1.0, "test")
    recorded = read_episode(Path(episode.join()["path"]))
    times, velocities = witness.motion()
    speeds = np.linalg.norm(velocities, axis=1)
    assert speeds[(times > pressed + 0.2) & (times < released + HOLD - 0.05)].max() < REST
    assert speeds[times > released + HOLD + 0.1].max() > 0.1 * SPEED
    assert recorded.intervention.sum() >= 10
    np.testing.assert_allclose(recorded.executed_action[recorded.intervention][2:-2], 0, atol=0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_an_episode_ends_with_the_process_that_records_it(graph: SafeReachGraph, client: GraphClient, witness: Witness,
                                                          tmp_path: Path, how: signal.Signals) -> None:
    witness.targets.clear()
    episode = Running(client, 23, "" if how == signal.SIGKILL else tmp_path)  # nobody waits for a dead one's receipt
    episode.until(6)
    gone = time.monotonic()
    graph.nodes["recorder"].signal(how)
    try:
        wait_for(lambda: client.gate()["state"] == "FAULT", 2.0, "a latched stop")
        time.sleep(0.5)
        assert witness.rest_after(gone) < 0.35, "150 ms, and braking"
        assert client.gate()["reason"] == "operator_stop"
    finally:
        graph.nodes["recorder"].signal(signal.SIGCONT)
    assert "lost_recorder" in episode.join()["message"]
    if how == signal.SIGKILL:
        start_recorder(graph)
        wait_for(lambda: "ready" in graph.nodes["recorder"].output, READY_TIMEOUT, "the recorder again")
    else:
        assert read_episode(Path(episode.result["path"])).truncated[-1], "what was finished is kept"
    with pytest.raises(GraphError, match=r"FAULT.*/safety_gate/arm"):
        client.run_episode("original", 24, "policy")
