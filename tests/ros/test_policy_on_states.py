"""Policies that learned from states, on the simulated arm: what they see, alignment while the arm moves, thresholds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from safe_policy_ros.policy_view import AsSeen, AsStates, view_for

from safe_policy_core.commands import Evaluate
from safe_policy_core.data.episodes import read_episode
from safe_policy_core.errors import CheckpointError, ConfigurationError
from safe_policy_core.methods.overrides import override, preset
from safe_policy_core.methods.registry import make_learner
from safe_policy_core.training.offline import train_offline
from sim.collectors.collect import collect
from sim.collectors.tasks import TASKS
from sim.safe_reach import task
from sim.safe_reach.layouts import sample_layout
from sim.safe_reach.state import STATE_SPECS, StateReachEnv, StateView
from tests.ros.graph import wait_for
from tests.ros.safe_reach_graph import READY_TIMEOUT, safe_reach_graph

pytestmark = pytest.mark.ros
SMALL = ("units=16", "layers=1", "heads=1", "length=12")


def test_states_are_those_of_the_direct_environment() -> None:
    for name, seed in (("original", 3), ("more_obstacles", 4), ("random_layout", 5)):
        env = StateReachEnv(name)
        seen, _ = env.reset(seed)
        view = AsStates()
        layout = sample_layout(name, seed).to_json()
        view.begin(layout)
        # Objects settle on the table by less than a tenth of a millimetre, and the arm is not quite at its start.
        np.testing.assert_allclose(view.observation({"pose": env.pose})["vector"], seen["vector"], atol=2e-4)
        expected = view.expected(layout, seed)
        assert expected is not None
        np.testing.assert_allclose(expected["vector"], seen["vector"], atol=2e-3)
        assert STATE_SPECS.validate_observation(expected)
        assert view.reward(0.0) == env.step(np.zeros(6, np.float32))[1]
        env.close()


def test_who_needs_states_is_refused_where_nobody_knows_them() -> None:
    assert isinstance(view_for(STATE_SPECS, task.SPECS, "service", "x"), AsStates)
    assert isinstance(view_for(task.SPECS, task.SPECS, "manual", "x"), AsSeen)
    with pytest.raises(CheckpointError, match="x: made for states, which a scene of kind 'manual' does not tell"):
        view_for(STATE_SPECS, task.SPECS, "manual", "x")
    with pytest.raises(CheckpointError, match="x: made for other specs: observation"):
        view_for(task.VECTOR_SPECS, task.SPECS, "service", "x")
    assert AsStates().expected({}, 0) is None
    with pytest.raises(ConfigurationError, match="layout: expected a target"):
        StateView(task.Layout())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decision transformer that aligns itself, and QPT, after a few steps on SafeReach's states."""
    folder = tmp_path_factory.mktemp("states")
    data = collect(TASKS["SafeReach"], 12, 0, folder / "SafeReach.hdf5", "test")
    made = {}
    for method, settings in (("dt", SMALL), ("qpt", (*SMALL, "candidates=3", "critic_units=16", "critic_layers=1")),
                             ("sas", (f"base={folder / 'dt'}", "imagined_steps=6", "trajectories=2", "candidates=2"))):
        learner = make_learner(method, data.specs, override(preset(method, "small"), settings), 0)
        train_offline(learner, data, 3, 4, 6, 0, folder / method / "checkpoint", progress=False)
        made[method] = folder / method
    return made


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator:
    from safe_policy_ros.client import GraphClient

    with safe_reach_graph(tmp_path_factory.mktemp("logs")) as running:
        running.start_world(learned_layer="absent")  # as the gate's fault monitor_stale asks for: no probabilities here
        running.start_episodes()
        with GraphClient(domain=running.graph.domain) as connected:
            connected.wait_ready(READY_TIMEOUT)
            connected.arm()
            yield connected


def reports(client) -> list[dict[str, str]]:
    """What the policy node says of itself from now on, as it comes."""
    heard: list[dict[str, str]] = []

    def hear(message: DiagnosticArray) -> None:
        heard.extend({value.key: value.value for value in status.values} for status in message.status
                     if status.name == "policy: episode")

    client._node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    return heard


def test_it_aligns_while_the_arm_moves_to_its_start_and_says_so(client, checkpoints: dict[str, Path],
                                                                tmp_path: Path) -> None:
    client.load(checkpoints["sas"])
    heard = reports(client)
    result = client.run_episode("original", 21, "policy", tmp_path)
    assert result["message"] == "" and result["steps"] > 3
    told = wait_for(lambda: next((report for report in heard if "alignment_ms" in report), None), 5.0, "a report")
    assert told["alignment_arm"] == "homing" and float(told["alignment_ms"]) > 0
    assert int(told["alignment_course"]) >= 0 and float(told["alignment_peak_energy"]) > -1e9, "what was chosen"
    episode = read_episode(Path(result["path"]))
    assert episode.policy_action.any() and "image" in episode.observations, "what is recorded does not change"
    # An episode of a policy that does not align says nothing of the one before.
    client.load(checkpoints["qpt"])
    client.run_episode("original", 22, "policy")
    heard.clear()
    assert "alignment_ms" not in wait_for(lambda: heard[-1] if heard else None, 5.0, "a report")


def test_a_threshold_is_changed_between_episodes(client, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    client.load(checkpoints["qpt"])
    parameters = client._node.create_client(SetParameters, "/policy/set_parameters")
    wait_for(parameters.service_is_ready, 5.0, "the service")
    for cost, accepted in ((3.0, True), (-2.0, False), (0.5, True), (-1.0, True)):
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=cost)
        request = SetParameters.Request(parameters=[Parameter(name="target_cost", value=value)])
        answer = client._spinner.wait(parameters.call_async(request), 5.0, "the parameter")
        assert answer.results[0].successful == accepted, answer.results[0].reason
        if accepted:
            result = client.run_episode("original", 23, "policy", tmp_path)
            assert read_episode(Path(result["path"])).metadata.get("target_cost") == (cost if cost >= 0 else None)


def test_evaluating_on_the_arm_records_and_counts(client, checkpoints: dict[str, Path], tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(client._node.context.get_domain_id()))
    result = Evaluate(checkpoints["qpt"], episodes=2, seed=30, env="ros", out=tmp_path, target_cost=2.0).run()
    assert result["count"] == len(result["files"]) == 2 and result["stopped"] == "" and result["faults"] == []
    assert [json.loads(line)["seed"] for line in (tmp_path / "episodes.jsonl").read_text().splitlines()] == [30, 31]
    assert 0 <= result["violation_interval"][0] <= result["violations"] / 2 <= result["violation_interval"][1] < 1.01
    for path in result["files"]:
        metadata = read_episode(Path(path)).metadata
        assert metadata["checkpoint_sha256"] == result["sha256"] and metadata["deterministic"] is True
        assert metadata["target_cost"] == 2.0
    with pytest.raises(ConfigurationError, match="out: expected a folder"):
        Evaluate(checkpoints["qpt"], env="ros").run()
    with pytest.raises(ConfigurationError, match="arm: only of an arm"):
        Evaluate(checkpoints["qpt"], arm=True).run()
