"""A person takes the arm from a policy in the running graph; and a process that an episode needs is lost."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from safe_policy_interfaces.msg import EpisodeState, Monitor
from safe_policy_ros import qos
from safe_policy_ros.client import GraphClient, GraphError
from safe_policy_ros.commands import finetune_over_ros
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.messages import pose_from_msg, stamp_to_ns, twist_from_msg
from safe_policy_ros.spinner import Spinner
from safe_policy_ros.teleop_node import TeleopNode
from std_msgs.msg import Header

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.data.episodes import read_episode
from safe_policy_core.errors import RobotUnavailableError
from safe_policy_core.scheduling import CONTROL_PRIORITY, come_first, step_back
from safe_policy_core.training.session import FinetuneSession
from sim.safe_reach import task
from tests.data_collection.test_spacemouse import FULL, buttons, mouse, translation
from tests.ros.graph import wait_for
from tests.ros.learning_rig import tiny_checkpoint, write_episodes
from tests.ros.safe_reach_graph import READY_TIMEOUT, SafeReachGraph, safe_reach_graph

pytestmark = [pytest.mark.ros, pytest.mark.takeover]

HOLD = 0.5
"""[s] teleop_hold of safety_gate.yaml."""
SPEED = task.MAX_TRANSLATION_STEP / 0.1
"""[m/s] Of the SpaceMouse at full displacement."""
REST = 0.003
"""[m/s]"""
HEARTBEAT_HOLD = 0.25
"""[s] Of safety_gate_simulated.yaml."""
COUNTDOWN = 1.0
"""[s]"""
POLL = 0.1
"""[s] Between two looks of the witness: what it costs is one less for the graph."""


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
        self.countdown: list[tuple[float, int]] = []
        self.on_running: Callable[[], None] | None = None
        group = TakenByHand()
        self._taps = [(subscribe(self._node, kind, topic, profile, group, 100), handle)
                      for kind, topic, profile, handle in (
            (PoseStamped, "/franka/target_pose", qos.COMMAND,
             lambda when, m: self.targets.append((when, pose_from_msg(m.pose).position))),
            (TwistStamped, "/policy/delta_twist_cmds", qos.COMMAND, lambda when, m: self.policy.append((when, m))),
            (Monitor, "/policy/monitor", qos.COMMAND, lambda _, m: self.monitors.append(m)),
            (Header, "/episode/heartbeat", qos.COMMAND, lambda when, _: self.beats.append(when)),
            (EpisodeState, "/episode/state", qos.EPISODE_STATE, self._on_state))]
        device, self.mouse = mouse(deadband=0.0)
        self._teleop = TeleopNode(device, context=self._context)
        self._spinner = Spinner(self._teleop)
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, daemon=True)
        self._poller.start()

    def _poll(self) -> None:
        """Takes what has come with its time of receipt: a callback for each would keep a core from the graph."""
        while not self._closing.wait(POLL):
            for subscription, handle in self._taps:
                for message, info in take(subscription):
                    handle(info["received_timestamp"] * 1e-9, message)

    def _on_state(self, when: float, message: EpisodeState) -> None:
        self.phases.append((when, message.phase))
        if left := json.loads(message.metadata_json or "{}").get("countdown"):
            self.countdown.append((when, left))
        if message.phase == EpisodeState.RUNNING and self.on_running is not None:
            self.on_running()

    def push(self, report: bytearray, seconds: float, release: bytearray) -> float:
        """Reports 50 times a second, as the device sends them, then the release. Returns when it was."""
        for _ in range(round(seconds / 0.02)):
            self.mouse.reports.append(bytearray(report))
            time.sleep(0.02)
        self.mouse.reports.append(release)
        return time.time()

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
        self._closing.set()
        self._poller.join(2.0)
        self._spinner.close()
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
        running.start_policy(checkpoint=checkpoint, countdown=COUNTDOWN)
        start_recorder(running)
        yield running


def start_recorder(graph: SafeReachGraph) -> None:
    graph.nodes["recorder"] = graph.graph.node("recorder_node", directory=graph.graph.directory / "recordings")


@pytest.fixture(scope="module")
def witness(graph: SafeReachGraph) -> Iterator[Witness]:
    come_first(CONTROL_PRIORITY)  # as teleop_node does; threads of ROS inherit it
    with contextlib.closing(Witness(graph.graph.domain)) as made:
        yield made
    step_back()


@pytest.fixture(scope="module")
def client(graph: SafeReachGraph, witness: Witness) -> Iterator[GraphClient]:
    with GraphClient(domain=graph.graph.domain) as connected:
        connected.wait_ready(READY_TIMEOUT)
        yield connected


class Running:
    """An episode in a thread, up to a step at which the test does something."""

    running: Running | None = None
    """The last one, which a failed test may have left behind."""

    def __init__(self, client: GraphClient, seed: int, directory: Path | str) -> None:
        if Running.running is not None and Running.running._thread.is_alive():
            client.label("abort", 1.0, "test")
            Running.running._thread.join(30.0)
            client.label("abort", 0.0, "test")
        Running.running = self
        self.steps, self.result, self.error = 0, {}, ""
        if client.gate()["state"] in ("DISARMED", "FAULT"):
            client.arm()
        self._thread = threading.Thread(target=self._run, args=(client, seed, directory))
        self._thread.start()

    def _run(self, client: GraphClient, seed: int, directory: Path | str) -> None:
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
    for _ in range(5):
        for name in ("targets", "policy", "monitors", "beats", "phases", "countdown"):
            getattr(witness, name).clear()
        episode = Running(client, 21, tmp_path)  # ends the one before
        episode.until(5)
        began = time.time()
        if witness.push(translation(z=-FULL), 0.1, translation()) - began < 0.2:
            break  # a push that lasted longer is this process's lateness, and no test of anything
    else:
        pytest.fail("this process cannot move the SpaceMouse for 0.1 s: the machine is too busy")
    episode.until(6)
    began = time.time()
    released = witness.push(translation(x=-FULL), 0.6, translation())  # to the left, +y
    episode.until(episode.steps + 12)
    client.label("abort", 1.0, "test")
    result = episode.join()
    assert "abort" in result["message"], result

    times, velocities = witness.motion()
    # A push that lasts longer, because this process was late, ends at the workspace's edge.
    pushed = (times > began + 0.15) & (times < min(released - 0.02, began + 0.5))
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
    assert np.diff(beats).max() < HEARTBEAT_HOLD


def test_the_arm_waits_for_the_countdown_which_can_be_aborted(client: GraphClient, witness: Witness) -> None:
    """Looks at the episode before, and begins one."""
    began, left = witness.countdown[0]
    running = next(when for when, phase in witness.phases if phase == EpisodeState.RUNNING)
    assert left == COUNTDOWN and running - began > COUNTDOWN - 0.1
    moved = [when for when, m in witness.policy if twist_from_msg(m.twist).any() and began + 0.1 < when < running]
    assert not moved
    witness.countdown.clear()
    episode = Running(client, 25, "")
    wait_for(lambda: witness.countdown, 20.0, "the countdown")
    client.label("abort", 1.0, "test")
    wait_for(lambda: episode.error, 5.0, "the end of it")
    client.label("abort", 0.0, "test")
    assert "countdown was aborted by test" in episode.error


def test_the_takeover_button_holds_the_arm(client: GraphClient, witness: Witness, tmp_path: Path) -> None:
    """The parameter `buttons` gives the fourth button to the takeover; the SpaceMouse Compact has two, so it is the
    second here."""
    witness._teleop._buttons = ["reward", "takeover"]
    witness.targets.clear()
    episode = Running(client, 22, tmp_path)
    episode.until(5)
    pressed = time.time()
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
    gone = time.time()
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


@pytest.mark.timeout(600)  # learning gets what the real-time graph leaves over
def test_a_session_whose_learner_hangs_ends_and_goes_on_at_the_same_episode(
        graph: SafeReachGraph, client: GraphClient, witness: Witness, checkpoint: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes are cut short by the abort label, to be quick."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(graph.graph.domain))
    out, data = tmp_path / "tuned", tmp_path / "data"
    write_episodes(data)

    def cut_short() -> None:
        for delay, level in ((0.8, 1.0), (1.1, 0.0)):
            threading.Timer(delay, client.label, ("abort", level, "test")).start()

    def start_tuner() -> None:
        graph.nodes["fine_tuner"] = graph.graph.node("fine_tuner_node", batch=2, length=6)
        wait_for(lambda: "ready" in graph.nodes["fine_tuner"].output, READY_TIMEOUT, "the learner")

    def tune(session: FinetuneSession) -> dict:
        return finetune_over_ros("original", 2, 2, checkpoint, out, seed=70, data=[data], arm=True, session=session)

    identity = {"task": "original"}
    start_tuner()
    witness.on_running = cut_short
    first = FinetuneSession.begin(out, identity, str(checkpoint))
    # At the beginning of the second round of learning: two updates are too quick to be hit from outside.
    monkeypatch.setattr(first, "acted", lambda row, acted=first.acted: (
        acted(row), graph.nodes["fine_tuner"].signal(signal.SIGSTOP) if first.rows else None))
    with pytest.raises(RobotUnavailableError, match=r"fine_tuner_node has been silent.*--resume"):
        tune(first)
    assert client.gate()["state"] in ("HOLD", "DISARMED"), "the arm is at rest meanwhile"
    assert [row["seed"] for row in first.rows] == [70] and first.pending["seed"] == 71
    first._lock.close()
    graph.nodes["fine_tuner"].signal(signal.SIGKILL)
    start_tuner()
    result = tune(FinetuneSession.resume(out, identity))
    witness.on_running = None
    assert [row["seed"] for row in result["episodes"]] == [70, 71]
    assert len({row["path"] for row in result["episodes"]}) == 2 == len(list((out / "episodes").glob("*.h5")))
    assert result["episodes"][1]["metrics"]["rolled_back"] == 0
    online = read_manifest(result["checkpoint"])["extra"]["fine_tuning"]
    assert (online["updates"], online["episodes"]) == (4, 2)
    assert online["origin"] == read_manifest(checkpoint)["sha256"]
    acted = read_episode(Path(result["files"][1]))
    assert acted.metadata["checkpoint_sha256"] == result["episodes"][1]["acted_sha256"]
    assert result["episodes"][1]["acted_sha256"] == read_manifest(out / "versions" / "0001")["sha256"]
    assert acted.metadata["replay"].startswith("overridden")
