"""Episodes through the whole graph: the scripted operator, a policy, and what happens when parts of it fail."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from std_srvs.srv import Trigger

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.data.episodes import read_episode
from safe_policy_core.errors import UserError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.registry import make_learner
from sim.safe_reach import task
from tests.core.fosp_rig import tiny_config
from tests.ros.graph import wait_for
from tests.ros.learning_rig import tiny_checkpoint, write_episodes
from tests.ros.safe_reach_graph import READY_TIMEOUT, SafeReachGraph, safe_reach_graph

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    write_episodes(folder / "data")
    return tiny_checkpoint(folder / "checkpoint", folder / "data")


@pytest.fixture(scope="module")
def ill_fitting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for an action of three numbers."""
    other = Specs(task.SPECS.observation, dataclasses.replace(task.SPECS.action, shape=(3,)), task.SPECS.scales)
    folder = tmp_path_factory.mktemp("ill_fitting") / "other"
    make_learner("fosp", other, tiny_config(), 0).save(folder)
    return folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, ill_fitting: Path) -> Iterator[SafeReachGraph]:
    """Started after the checkpoints were made, so that nothing computes beside it."""
    with safe_reach_graph(tmp_path_factory.mktemp("logs")) as running:
        running.start_world()
        running.start_episodes()
        yield running


@pytest.fixture(scope="module")
def client(graph: SafeReachGraph) -> Iterator:
    from safe_policy_ros.client import GraphClient

    with GraphClient(domain=graph.graph.domain) as connected:
        connected.wait_ready(READY_TIMEOUT)
        yield connected


@pytest.fixture
def armed(client) -> Iterator:
    if client.gate()["state"] in ("DISARMED", "FAULT"):
        client.arm()
    yield client


def test_an_unarmed_gate_is_an_error_that_says_what_to_do(client) -> None:
    with pytest.raises(UserError, match=r"DISARMED.*/safety_gate/arm"):
        client.run_episode("original", 1, "teleop", operator="scripted")


def test_bad_requests_are_named_and_the_node_lives_on(armed, ill_fitting: Path, tmp_path: Path) -> None:
    for call, named in ((lambda: armed.run_episode("juggling", 1, "teleop"), "juggling.*random_layout"),
                        (lambda: armed.run_episode("original", 1, "ghost"), "source.*ghost"),
                        (lambda: armed.run_episode("original", 1, "policy"), "no policy is loaded.*/policy/load"),
                        (lambda: armed.load(tmp_path / "nothing"), "nothing"),
                        (lambda: armed.load(ill_fitting), "other specs: action")):
        with pytest.raises(UserError, match=named) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_scripted_operator_reaches_the_target_and_is_recorded(armed, tmp_path: Path) -> None:
    heard: list[dict] = []
    result = armed.run_episode("original", 11, "teleop", tmp_path, "scripted", on_step=heard.append)
    assert result["success"] and result["terminated"] and not result["truncated"], result
    assert result["episode_return"] == 1.0
    assert len(heard) == result["steps"]
    episode = read_episode(Path(result["path"]))
    assert len(episode) == result["steps"]
    assert episode.reward[-1] == 1.0 and episode.terminated[-1]
    assert episode.metadata["operator"] == "scripted"
    assert episode.metadata["specs"] == task.SPECS.to_json()
    assert len(episode.metadata["layout"]["obstacles"]) == 2
    assert episode.intervention.mean() > 0.7
    assert not episode.policy_action.any()
    np.testing.assert_allclose(np.diff(episode.time_ns) * 1e-9, 0.1, atol=0.07)
    # What ran is what the operator asked for, within the steps that no limit touched.
    free = episode.intervention & np.array([set(reason.split(",")) <= {"teleop"} for reason in episode.filter_reason])
    error = np.abs(episode.executed_action - episode.human_action)[free]
    assert np.median(error) < 0.08
    # The arm went where the executed actions say, and the camera saw it go.
    moved = episode.observations["pose"][-1, :2] - episode.observations["pose"][0, :2]
    asked = episode.executed_action.sum(0)[:2] * task.MAX_TRANSLATION_STEP
    np.testing.assert_allclose(moved, asked, atol=0.025)
    images = episode.observations["image"].astype(int)
    assert np.abs(np.diff(images, axis=0)).max(axis=(1, 2, 3)).min() > 0


def test_a_policy_acts_and_its_episode_names_its_weights(armed, checkpoint: Path, tmp_path: Path) -> None:
    sha256 = armed.load(checkpoint)
    assert sha256 == read_manifest(checkpoint)["sha256"]
    refused: list[str] = []

    def hear(step: dict) -> None:
        if step["step"] == 3:
            threading.Thread(target=lambda: refused.append(_refusal(armed, checkpoint))).start()

    result = armed.run_episode("more_obstacles", 5, "policy", tmp_path, on_step=hear)
    assert result["message"] == ""
    assert result["terminated"] != result["truncated"]
    episode = read_episode(Path(result["path"]))
    assert episode.metadata["checkpoint_sha256"] == sha256
    assert len(episode.metadata["layout"]["obstacles"]) == 4
    assert not episode.intervention.any()
    assert episode.policy_action.any()
    free = np.array([reason == "" for reason in episode.filter_reason])
    assert np.median(np.abs(episode.executed_action - episode.policy_action)[free]) < 0.1
    assert float(episode.cost.max(initial=0.0) > 0) == float(result["violation"])
    assert "episode is running" in wait_for(lambda: refused, 5.0, "an answer of /policy/load")[0]


def _refusal(client, checkpoint: Path) -> str:
    try:
        client.load(checkpoint)
    except UserError as error:
        return str(error)
    return ""


def test_cancelling_stops_the_arm_and_frees_the_node(armed, checkpoint: Path) -> None:
    armed.load(checkpoint)
    with pytest.raises(UserError, match="run_episode"):
        armed.run_episode("original", 6, "policy", timeout=2.5)
    wait_for(lambda: armed.gate()["state"] == "HOLD", 2.0, "the arm at rest, without a fault")
    result = armed.run_episode("original", 7, "teleop", operator="scripted")
    assert result["steps"] > 3
    assert result["path"] == "", "without a folder nothing is recorded"


def test_a_spent_cost_budget_of_the_gate_ends_the_episode(armed, checkpoint: Path) -> None:
    armed.load(checkpoint)
    assert not armed.cost_budget_spent()

    def hear(step: dict) -> None:
        if step["step"] == 3:
            armed.label("cost", armed.gate()["cost_budget"], "test")

    try:
        result = armed.run_episode("original", 10, "policy", on_step=hear,
                                   stop_when=lambda: bool(armed.cost_budget_spent()))
    finally:
        armed.label("cost", 0.0, "test")
    assert result["truncated"] and 4 <= result["steps"] <= 10, result
    assert "/safety_gate/reset_cost" in armed.cost_budget_spent()
    reset = armed._node.create_client(Trigger, "/safety_gate/reset_cost")
    wait_for(reset.service_is_ready, 5.0, "the service")
    assert armed._spinner.wait(reset.call_async(Trigger.Request()), 5.0, "reset").success
    wait_for(lambda: not armed.cost_budget_spent(), 2.0, "another budget")


def test_a_camera_that_dies_ends_the_episode_and_stops_the_arm(graph: SafeReachGraph, armed, checkpoint: Path,
                                                               tmp_path: Path) -> None:
    armed.load(checkpoint)
    states: list[str] = []

    def hear(step: dict) -> None:
        if step["step"] == 8:
            graph.nodes["camera"].signal(signal.SIGKILL)

    try:
        result = armed.run_episode("original", 8, "policy", tmp_path, on_step=hear)
        states.append(armed.gate()["state"])
    finally:
        graph.start_camera()
    assert result["truncated"] and not result["terminated"]
    # The gate and the episode both watch the camera, with the same patience.
    assert "camera_silent" in result["message"] or "stale_image" in result["message"]
    assert 9 <= result["steps"] <= 15
    wait_for(lambda: armed.gate()["state"] in ("HOLD", "FAULT"), 1.0, "the arm at rest")
    assert read_episode(Path(result["path"])).truncated[-1], "what was seen until then is kept"


def test_the_graph_goes_on_after_that(armed, tmp_path: Path) -> None:
    def again() -> dict | None:
        try:
            if armed.gate()["state"] == "FAULT":  # it homed without a camera
                armed.arm()
            return armed.run_episode("original", 9, "teleop", tmp_path, "scripted")
        except UserError:
            return None  # the new camera is not there yet

    assert wait_for(again, READY_TIMEOUT, "the next episode")["steps"] > 3
