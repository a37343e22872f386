"""The scene behind the real libfranka protocol, driven by a real franky client in its own process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
import yaml

from robot_bringup.environment import ROOT
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.geometry import Pose
from sim.safe_reach import task
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.layouts import sample_layout
from sim.safe_reach.link import SceneLink
from sim.safe_reach.renderer import SnapshotRenderer

START_TIMEOUT = 120.0
"""[s] Two cores, and the rest of the test suite on them."""
LAG_TOLERANCE = 0.004
"""Median distance between the two ways into the scene under the same commands [m]."""
MAX_ERROR = yaml.safe_load((ROOT / "robot_bringup" / "config" / "franka.yaml").read_text())[
    "franka"]["ros__parameters"]["max_error"]
CLIENT = Path(__file__).with_name("franky_client.py")


class Server:
    """The server process and a link to it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "sim.safe_reach.server", "--link", "0"],
                                        stderr=subprocess.PIPE, text=True)
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if match := re.search(r"arm at (\S+), scene link at (\S+)", line):
                break
        else:
            raise RuntimeError("server: " + "".join(lines))
        self.arm, self.address = match.groups()
        # Read on, so that a full pipe never stops the server.
        self._drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        self.link = SceneLink(self.address, START_TIMEOUT)

    def drive(self, actions: list[list[float]], start: Pose | None = None) -> np.ndarray:
        """Runs a franky client that follows `actions` through the gate's integrator. Rows of (6,) measured poses."""
        request = {"arm": self.arm, "link": self.address, "actions": actions, "max_error": MAX_ERROR,
                   "start": None if start is None else [*start.position, *start.quaternion]}
        result = subprocess.run([sys.executable, str(CLIENT)], input=json.dumps(request), capture_output=True,
                                text=True, timeout=START_TIMEOUT, env=os.environ | {"PYTHONPATH": str(Path.cwd())},
                                check=False)
        assert result.returncode == 0, result.stderr[-2000:]
        return np.array(json.loads(result.stdout.splitlines()[-1]))

    def stop(self) -> int:
        self.link.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._drain.wait(30)
        return code


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    if server.process.poll() is None:
        server.stop()


def test_snapshots_follow_the_clock(server: Server) -> None:
    first = server.link.snapshot()
    time.sleep(0.5)
    second = server.link.snapshot()
    assert second.steps > first.steps
    assert second.monotonic_ns > first.monotonic_ns
    assert second.tool[:3] == pytest.approx([*task.START, task.TOOL_HEIGHT], abs=1e-3)


def test_layouts_change_while_the_loop_runs(server: Server) -> None:
    for seed, name in enumerate(task.TASKS):
        before = server.link.snapshot()
        placed = server.link.reset(name, seed)
        assert placed == sample_layout(name, seed).to_json()
        snapshot = server.link.snapshot()
        assert snapshot.generation == before.generation + 1
        assert (snapshot.shapes[:-1] > 0).sum() == len(placed["obstacles"])
        assert snapshot.target[:2] == pytest.approx([placed["target"]["x"], placed["target"]["y"]])
    # Who clears the table is told what will stand on it.
    assert server.link.reset("original", 0, clear=True) == sample_layout("original", 0).to_json()
    assert not server.link.snapshot().shapes.any()
    with pytest.raises(ConfigurationError, match="unknown 'x'"):
        server.link.reset("x", 0)
    with pytest.raises(ConfigurationError, match="operating area"):
        server.link.place(task.Layout((task.Item("box", 2.0, 0.0),)))


def test_pictures_are_those_of_the_direct_environment(server: Server, safe_reach: SafeReachEnv) -> None:
    renderer = SnapshotRenderer()
    for seed, name in ((3, "more_obstacles"), (4, "target_shape")):
        server.link.reset(name, seed)
        time.sleep(0.1)
        snapshot = server.link.snapshot()
        safe_reach.start(sample_layout(name, seed), seed)
        data = safe_reach.scene.data
        data.qpos[:] = snapshot.qpos
        safe_reach._controller.set_target(safe_reach.scene.tool)
        mujoco.mj_forward(safe_reach.scene.model, data)
        np.testing.assert_array_equal(renderer.render(snapshot), safe_reach.render(64, 64))
    renderer.close()


def test_the_same_commands_move_both_alike(server: Server, safe_reach: SafeReachEnv) -> None:
    """A policy trained in the direct environment runs on the arm: lag and scale must be the same."""
    server.link.reset("original", 0, clear=True)
    actions = [[0.0] * 6] * 3 + [[0.0, 1.0, 0, 0, 0, 0]] * 8 + [[0.0] * 6] * 3 + [[0.7, -0.5, 0, 0, 0, 0]] * 5 + \
        [[0, 0, 0, 0.8, 0, 0]] * 3 + [[0.0] * 6] * 4
    measured = server.drive(actions, task.start_pose(11))
    safe_reach.start(task.Layout(), 11, Pose.from_vector(measured[0], np.array(task.NOMINAL_QUATERNION)))
    direct = [safe_reach.pose] + [(safe_reach.step(np.array(a, np.float32)), safe_reach.pose)[1] for a in actions]
    error = np.abs(np.array(direct) - measured)
    assert np.ptp(measured[:, 1]) > 0.1, "the arm moved"
    assert np.median(np.linalg.norm(error[:, :3], axis=1)) < LAG_TOLERANCE
    assert np.median(np.linalg.norm(error[:, 3:], axis=1)) < 0.03
    assert error[-1, :3].max() < 0.004, "both come to rest in the same place"


def test_contacts_of_the_arm_are_cost_and_reward(server: Server) -> None:
    home = task.start_pose(11)
    x = float(home.position[0])
    push = [[0.0] * 6] * 2 + [[0.0, 1.0, 0, 0, 0, 0]] * 7 + [[0.0, -1.0, 0, 0, 0, 0]] * 5 + [[0.0] * 6] * 6
    server.link.reset("original", 0, clear=True)
    server.drive([[0.0] * 6], home)
    server.link.place(task.Layout((task.Item("box", x, -0.05),), task.Item("cylinder", 0.42, 0.1)))
    assert not server.link.snapshot().cost
    server.drive(push)
    after = server.link.snapshot()
    assert after.cost_onsets >= 1 and after.touch_onsets == 0
    assert not after.cost, "the obstacle rests again"
    server.link.reset("original", 0, clear=True)
    assert server.link.snapshot().cost_onsets == 0
    server.drive([[0.0] * 6], home)
    server.link.place(task.Layout((), task.Item("cylinder", x, -0.02)))
    server.drive(push)
    after = server.link.snapshot()
    assert after.touch_onsets >= 1 and after.cost_onsets == 0


def test_the_arm_leans_on_something_fixed_and_its_wrist_holds(server: Server) -> None:
    """The target does not move. With a pull of up to 100 N instead of 40 the tool tilts by 0.36 rad here."""
    home = task.start_pose(11)
    server.link.reset("original", 0, clear=True)
    server.drive([[0.0] * 6], home)
    x, y = home.position[:2]
    server.link.place(task.Layout((), task.Item("cylinder", float(x) + 0.07, float(y))))
    poses = server.drive([[1.0, 0, 0, 0, 0, 0]] * 15 + [[-1.0, 0, 0, 0, 0, 0]] * 5)
    assert server.link.snapshot().touch_onsets >= 1
    assert np.abs(poses[:, 3:]).max() < 0.15
    assert np.abs(poses[:, 2] - poses[0, 2]).max() < 0.01


def test_a_second_server_on_the_same_port_says_so(server: Server) -> None:
    port = server.address.rpartition(":")[2]
    second = subprocess.run([sys.executable, "-m", "sim.safe_reach.server", "--link", port], capture_output=True,
                            text=True, timeout=START_TIMEOUT, check=False)
    assert second.returncode == 2
    assert second.stderr.strip().splitlines()[-1].startswith(f"link port {port}:")


def test_it_stops_cleanly(server: Server) -> None:
    memory = server.link._reader
    path = Path("/dev/shm") / f"safe_reach_{os.getuid()}_{server.address.rpartition(':')[2]}"
    assert memory.read().steps > 0 and path.exists()
    assert server.stop() == 0
    assert not path.exists()
