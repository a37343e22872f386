"""The SROS 2 policy against the running graph: whatever a node really uses is allowed to it, and nothing more is used.

DDS Security itself is not in the wheels, so nothing is enforced here; the names are those that would be.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

from rclpy.context import Context
from rclpy.node import Node

from tests.bringup.sros2_policy import read_policy
from tests.ros.graph import ros_graph, wait_for

pytestmark = pytest.mark.ros
NODES = {"franka", "safety_gate", "scene", "camera", "supervisor", "teleop", "recorder", "policy", "policy_env",
         "fine_tuner"}
START_TIMEOUT = 120.0


@contextlib.contextmanager
def observer(domain: int) -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("observer", context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def used(node: Node, name: str) -> set[tuple[str, str]]:
    """(permission, full name) of everything that a node has."""
    queries = {"publish": node.get_publisher_names_and_types_by_node,
               "subscribe": node.get_subscriber_names_and_types_by_node,
               "reply": node.get_service_names_and_types_by_node, "request": node.get_client_names_and_types_by_node}
    return {(permission, topic) for permission, query in queries.items() for topic, _ in query(name, "/")}


def test_the_simulated_robots_launch_file_comes_up_and_keeps_to_the_policy(tmp_path: Path) -> None:
    profiles = {profile.node: profile for profile in read_policy()}
    with (Path(tempfile.gettempdir()) / "safe_policy_graph.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ros_graph(tmp_path) as graph, observer(graph.domain) as node:
            launch = graph.python("launch", "-m", "robot_bringup", "safe_reach_sim", "link:=5698",
                                  f"directory:={tmp_path}")
            wait_for(lambda: "everything is up" in launch.output or launch.poll() is not None, START_TIMEOUT, "start")
            assert launch.poll() is None, launch.output
            order = [launch.output.index(f"{name} is active") for name in ("franka", "camera", "safety_gate")]
            assert order == sorted(order)
            wait_for(lambda: set(node.get_node_names()) >= NODES, START_TIMEOUT, f"the nodes {sorted(NODES)}")
            time.sleep(2.0)  # the last publishers are found
            # Other tests of this process may have left nodes of their own in sight; theirs end in its process id.
            seen = {name for name in node.get_node_names() if not name.endswith(f"_{os.getpid()}")}
            assert seen == NODES | {"observer"}
            everything = {name: used(node, name) for name in NODES}
            launch.stop(20.0)
    assert ("publish", "/franka/target_pose") in everything["safety_gate"]
    assert sum(len(names) for names in everything.values()) > 150, "the graph was seen in full"
    missing = {name: sorted(entry for entry in names if not profiles[name].may(*entry))
               for name, names in everything.items()}
    assert not any(missing.values()), missing
