"""The scene's labels and resets."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.context import Context
from safe_policy_interfaces.srv import ResetScene
from safe_policy_ros.scene_node import LabelWatch
from safe_policy_ros.spinner import Spinner, wait_for_server

from robot_bringup.environment import INSTALL
from sim.safe_reach.link import SceneLink
from sim.safe_reach.snapshot import Snapshot
from tests.ros.graph import Graph, ros_domain, ros_graph, wait_for

pytestmark = pytest.mark.ros
START_TIMEOUT = 90.0
QUIET = Snapshot(generation=1, time_ns=0, monotonic_ns=0, qpos=np.zeros(37), target=np.zeros(7), tool=np.zeros(7),
                 shapes=np.zeros(5), cost=False, touching=False, cost_onsets=0, touch_onsets=0, steps=0)


def changes(*snapshots: dict[str, object]) -> list[tuple[str, bool]]:
    watch = LabelWatch()
    watch.update(QUIET)
    return [change for values in snapshots for change in watch.update(dataclasses.replace(QUIET, **values))]


def test_levels_are_said_when_they_change() -> None:
    assert changes({}, {"cost": True, "cost_onsets": 1}, {"cost": True, "cost_onsets": 1}, {"cost_onsets": 1}) == [
        ("cost", True), ("cost", False)]


def test_a_touch_shorter_than_a_snapshot_is_said_too() -> None:
    assert changes({"touch_onsets": 1}) == [("reward", True), ("reward", False)]
    assert changes({"cost": True, "cost_onsets": 1}, {"cost": True, "cost_onsets": 2}) == [
        ("cost", True), ("cost", False), ("cost", True)]


def test_a_new_layout_ends_the_old_levels_and_counts_from_zero() -> None:
    assert changes({"cost": True, "cost_onsets": 3}, {"generation": 2}, {"generation": 2, "cost_onsets": 1})[-3:] == [
        ("cost", False), ("cost", True), ("cost", False)]


def test_a_late_start_does_not_report_the_past() -> None:
    assert LabelWatch().update(dataclasses.replace(QUIET, touch_onsets=4, cost_onsets=2)) == []


def test_reset_places_and_clears_and_names_what_is_wrong(tmp_path: Path) -> None:
    with ros_graph(tmp_path) as graph:
        server = graph.python("server", "-m", "sim.safe_reach.server", "--link", "0")
        address = wait_for(lambda: re.search(r"scene link at (\S+)", server.output), START_TIMEOUT, "server")[1]
        node = graph.node("scene_node", address=address)
        context = Context()
        rclpy.init(context=context, domain_id=graph.domain)
        probe = rclpy.create_node("scene_probe", context=context)
        client, spinner = probe.create_client(ResetScene, "/scene/reset"), Spinner(probe)
        try:
            wait_for_server(client.service_is_ready, START_TIMEOUT, "/scene/reset")

            def reset(task: str, seed: int, clear: bool = False) -> ResetScene.Response:
                request = ResetScene.Request(task=task, seed=seed, clear=clear)
                return spinner.wait(client.call_async(request), 10.0, "/scene/reset")

            first, again, other = (json.loads(reset("more_obstacles", s).layout_json) for s in (3, 3, 4))
            assert first == again != other
            assert len(first["obstacles"]) == 4 and first["target"] is not None
            with SceneLink(address) as link:
                assert (link.snapshot().shapes > 0).sum() == 5
                cleared = reset("more_obstacles", 3, clear=True)
                assert cleared.success and json.loads(cleared.layout_json) == first, "what will stand there"
                wait_for(lambda: (link.snapshot().shapes > 0).sum() == 0, 1.0, "an empty table")
            answer = reset("juggling", 0)
            assert not answer.success and "juggling" in answer.message and "random_layout" in answer.message
            server.signal(signal.SIGKILL)
            assert node.wait(10.0) == 2, "a scene that stands still ends the node"
            assert sum("[FATAL]" in line for line in node.output.splitlines()) == 1, node.output
        finally:
            spinner.close()
            probe.destroy_node()
            rclpy.shutdown(context=context)


def test_no_scene_is_one_line(tmp_path: Path) -> None:
    with ros_domain() as domain:
        graph = Graph(tmp_path, domain)
        run = subprocess.run([str(INSTALL / "lib/safe_policy_ros/scene_node"), "--ros-args", "-p",
                              "address:=127.0.0.1:9", "-p", "connect_timeout:=0.5"], env=graph.environment,
                             capture_output=True, text=True, timeout=60)
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert run.returncode == 2 and len(lines) == 1 and "127.0.0.1:9" in lines[0], lines
