"""The fine-tuner's process: it learns, hands out checkpoints, names what is wrong, and lives on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.methods.registry import load_policy
from sim.safe_reach.task import SPECS
from tests.ros.graph import Graph, Process, ros_graph, wait_for
from tests.ros.learning_rig import tiny_checkpoint, write_episodes

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    with ros_graph(tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="module")
def node(graph: Graph) -> Process:
    return graph.node("fine_tuner_node", batch=2, length=6)


@pytest.fixture(scope="module")
def client(graph: Graph, node: Process) -> Iterator:
    from safe_policy_ros.client import GraphClient

    with GraphClient(domain=graph.domain) as connected:
        connected.wait_tuner(60.0)
        yield connected


@pytest.fixture
def settings(tmp_path: Path) -> dict:
    data = tmp_path / "data"
    write_episodes(data)
    return {"checkpoint": str(tiny_checkpoint(tmp_path / "pretrained", data)), "data": [str(data)],
            "out": str(tmp_path / "tuned"), "seed": 3}


def test_learning_hands_out_a_new_checkpoint_each_time(client, settings: dict, tmp_path: Path) -> None:
    episode, = write_episodes(tmp_path / "new", 1, first_seed=50)
    client.configure_tuner(settings)
    heard: list[dict] = []
    first = client.learn("", 5, heard.append)
    second = client.learn(episode, 5)
    assert heard[-1]["update"] == 5
    assert first["metrics"] and first["learning_message"] == ""
    manifests = [read_manifest(Path(result["checkpoint"])) for result in (first, second)]
    assert manifests[0]["sha256"] != manifests[1]["sha256"] != read_manifest(settings["checkpoint"])["sha256"]
    assert manifests[0]["data_hash"] != manifests[1]["data_hash"], "the episode was not added"
    for result in (first, second):
        assert SPECS.difference(load_policy(Path(result["checkpoint"])).specs) is None


def test_bad_input_is_named_and_the_node_lives_on(client, node: Process, settings: dict, tmp_path: Path) -> None:
    from safe_policy_ros.client import GraphError

    truncated = tmp_path / "truncated.h5"
    episode, = write_episodes(tmp_path / "whole", 1)
    truncated.write_bytes(episode.read_bytes()[:2000])
    for change, path, named in (({"checkpoint": str(tmp_path / "none")}, "", "none"),
                                ({"checkpoint": ""}, "", "checkpoint"),
                                ({"data": [str(tmp_path / "nowhere")]}, "", "nowhere"),
                                ({}, tmp_path / "missing.h5", "missing.h5"),
                                ({}, truncated, "truncated.h5")):
        client.configure_tuner(settings | change)
        with pytest.raises(GraphError, match=named) as caught:
            client.learn(path, 1)
        assert "\n" not in str(caught.value)
    client.configure_tuner(settings)
    assert client.learn("", 1)["checkpoint"]
    assert node.poll() is None


def test_no_learning_while_an_episode_runs(client, graph: Graph, settings: dict) -> None:
    import rclpy
    from safe_policy_interfaces.msg import EpisodeState
    from safe_policy_ros import qos
    from safe_policy_ros.client import GraphError

    client.configure_tuner(settings)
    context = rclpy.Context()
    with rclpy.init(context=context, domain_id=graph.domain):
        policy = rclpy.create_node("policy_stand_in", context=context)
        states = policy.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        wait_for(lambda: states.get_subscription_count() > 0, 10.0, "the node hears of episodes")
        for phase in (EpisodeState.RUNNING, EpisodeState.ENDED):
            states.publish(EpisodeState(phase=phase, episode_id="one"))
            wait_for(lambda: states.wait_for_all_acked(), 2.0, "delivery")

            def learn() -> str:
                try:
                    return client.learn("", 1)["checkpoint"]
                except GraphError as error:
                    return str(error)

            if phase == EpisodeState.RUNNING:
                wait_for(lambda: "episode is running" in learn(), 10.0, "refusal")
            else:
                wait_for(lambda: "versions" in learn(), 10.0, "learning goes on")
        policy.destroy_node()


def test_learning_gives_way_to_the_control_loops(node: Process) -> None:
    wait_for(lambda: os.getpriority(os.PRIO_PROCESS, node.pid) >= 10, 20.0, "the learner behind ordinary processes")
