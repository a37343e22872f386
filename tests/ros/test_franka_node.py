"""The arm's process against the FCI simulator: real libfranka, real network protocol, real signals."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import PoseStamped, WrenchStamped
from rclpy.context import Context
from safe_policy_ros import qos
from safe_policy_ros.messages import pose_from_msg, pose_stamped
from safe_policy_ros.spinner import Spinner, wait_for_server
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from robot_bringup.environment import INSTALL
from safe_policy_core.geometry import Pose
from sim.safe_reach import task
from tests.ros.graph import CONFIG, Graph, Process, Prompt, ros_domain, ros_graph, wait_for

pytestmark = pytest.mark.ros
START_TIMEOUT = 90.0


class ArmProbe:
    """Plays the gate: publishes targets, listens to the arm."""

    def __init__(self, domain: int) -> None:
        self._prompt = Prompt()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = node = rclpy.create_node("arm_probe", context=self._context)
        self.poses: list[tuple[float, Pose]] = []
        self.joints: list[JointState] = []
        self.wrenches: list[WrenchStamped] = []
        node.create_subscription(PoseStamped, "/franka/current_pose", self._on_pose, qos.SENSOR)
        node.create_subscription(JointState, "/franka/joint_states", self.joints.append, qos.SENSOR)
        node.create_subscription(WrenchStamped, "/franka/external_wrench", self.wrenches.append, qos.SENSOR)
        self._targets = node.create_publisher(PoseStamped, "/franka/target_pose", qos.COMMAND)
        self._recover = node.create_client(Trigger, "/franka/recover")
        self._spinner = Spinner(node)

    def _on_pose(self, message: PoseStamped) -> None:
        assert message.header.frame_id == "fr3_link0"
        self.poses.append((time.monotonic(), pose_from_msg(message.pose)))

    @property
    def pose(self) -> Pose:
        wait_for(lambda: self.poses, START_TIMEOUT, "a pose of the arm")
        return self.poses[-1][1]

    def send(self, pose: Pose, frame: str = "fr3_link0") -> None:
        self._targets.publish(pose_stamped(pose, self.node.get_clock().now().nanoseconds, frame))

    def ramp(self, start: Pose, motion: tuple[float, float, float], seconds: float) -> Pose:
        """Targets at 100 Hz along a straight line; returns the last."""
        began = time.monotonic()
        while (share := (time.monotonic() - began) / seconds) < 1:
            self.send(Pose(start.position + share * np.array(motion), start.quaternion))
            time.sleep(0.01)
        end = Pose(start.position + np.array(motion), start.quaternion)
        self.send(end)
        return end

    def hold(self, pose: Pose, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(pose)
            time.sleep(0.01)

    def recover(self) -> Any:
        wait_for_server(self._recover.service_is_ready, START_TIMEOUT, "recover")
        return self._spinner.wait(self._recover.call_async(Trigger.Request()), 10.0, "recover")

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._prompt.end()


class World:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.server = graph.python("server", "-m", "sim.safe_reach.server", "--link", "0")
        found = wait_for(lambda: re.search(r"arm at (\S+), scene link", self.server.output), START_TIMEOUT, "the arm")
        self.address = found[1]
        self.probe = ArmProbe(graph.domain)
        self.node = self.start()

    def start(self) -> Process:
        node = self.graph.node("franka_node", parameters=CONFIG / "franka.yaml", robot_ip=self.address,
                               realtime="ignore")
        wait_for(lambda: node.poll() is not None or "ready" in node.output, START_TIMEOUT, "franka_node")
        wait_for(lambda: self.probe.node.count_subscribers("/franka/target_pose") == 1, START_TIMEOUT, "connection")
        return node


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ros_graph(tmp_path_factory.mktemp("franka")) as graph:
        world = World(graph)
        try:
            yield world
        finally:
            world.probe.close()


def test_the_state_comes_at_100_hz_in_the_tool_frame(world: World) -> None:
    probe = world.probe
    first = len(probe.poses) if probe.pose else 0
    time.sleep(1.0)
    assert 60 <= len(probe.poses) - first <= 105, "one pose for every new state, at 100 Hz"
    # The simulator starts at START_JOINTS, where the task says the tool is at START.
    np.testing.assert_allclose(probe.pose.position, [*task.START, task.TOOL_HEIGHT], atol=3e-3)
    assert np.linalg.norm(probe.pose.to_vector(np.array(task.NOMINAL_QUATERNION))[3:]) < 0.02
    joints = probe.joints[-1]
    assert list(joints.name) == [f"fr3_joint{i}" for i in range(1, 8)]
    np.testing.assert_allclose(joints.position, task.START_JOINTS, atol=0.01)
    assert len(joints.velocity) == len(joints.effort) == 7
    force = probe.wrenches[-1].wrench.force
    assert np.isfinite([force.x, force.y, force.z]).all()


def test_the_arm_follows_targets_and_holds_when_they_cease(world: World) -> None:
    probe = world.probe
    start = probe.pose
    end = probe.ramp(start, (0.03, 0.04, 0.0), 1.0)
    probe.hold(end, 0.4)
    assert np.linalg.norm(probe.pose.position - end.position) < 0.008
    wait_for(lambda: "tracking ended: no target" in world.node.output, 4.0, "the end of the tracking")
    rest = probe.pose
    time.sleep(0.5)
    assert np.linalg.norm(probe.pose.position - rest.position) < 1e-3
    assert np.linalg.norm(rest.position - end.position) < 0.01


def test_far_targets_wrong_frames_and_nan_move_nothing(world: World) -> None:
    probe = world.probe
    rest = probe.pose
    for pose, frame in ((Pose(rest.position + np.array([0, 0.06, 0]), rest.quaternion), "fr3_link0"),
                        (Pose(rest.position + np.array([0, 0.01, 0]), rest.quaternion), "world"),
                        (Pose(rest.position + np.array([0, np.nan, 0]), rest.quaternion), "fr3_link0")):
        for _ in range(10):
            probe.send(pose, frame)
            time.sleep(0.01)
    time.sleep(0.3)
    assert np.linalg.norm(probe.pose.position - rest.position) < 2e-3
    for said in ("target refused", "expected frame fr3_link0", "finite position"):
        assert said in world.node.output


def test_recovery_is_a_service_of_its_own(world: World) -> None:
    answer = world.probe.recover()
    assert answer.success, answer.message


def test_a_dead_gate_leaves_the_arm_at_rest(world: World) -> None:
    """The gate's process dies in the middle of a motion: targets cease from one moment to the next."""
    probe = world.probe
    last = probe.ramp(probe.pose, (0.0, 0.03, 0.0), 0.3)
    time.sleep(0.6)
    rest = probe.pose
    time.sleep(0.5)
    assert np.linalg.norm(rest.position - last.position) < 0.012
    assert np.linalg.norm(probe.pose.position - rest.position) < 1e-3


def test_a_hung_arm_ends_the_process_with_one_line(world: World) -> None:
    probe = world.probe
    probe.hold(probe.pose, 0.3)
    world.server.signal(signal.SIGSTOP)
    hung = time.monotonic()
    time.sleep(0.15)
    count = len(probe.poses)
    assert world.node.wait(8.0) == 2
    world.server.signal(signal.SIGCONT)
    assert time.monotonic() - hung < 8
    assert len(probe.poses) - count <= 1, "an arm that is silent has no pose"
    fatal = [line for line in world.node.output.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1 and ("silent" in fatal[0] or world.address in fatal[0])
    assert "Traceback" not in world.node.output


@pytest.mark.parametrize(("parameters", "message"), [
    ({"robot_ip": "127.0.0.213", "connect_timeout": 1.0}, "robot at 127.0.0.213 does not answer within 1 s"),
    ({"robot_ip": "192.0.2.1", "connect_timeout": 1.0}, "robot at 192.0.2.1 does not answer within 1 s"),
    ({}, "robot_ip: expected the robot's address"),
    ({"robot_ip": "127.0.0.213", "realtime": "perhaps"}, "realtime: expected enforce or ignore, got 'perhaps'"),
    ({"backend": "magic"}, "backend: expected franky or fake, got 'magic'")])
def test_an_arm_that_cannot_be_driven_is_one_line(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    with ros_domain() as domain:
        graph = Graph(tmp_path, domain)
        options = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        run = subprocess.run([str(INSTALL / "lib/safe_policy_ros/franka_node"), "--ros-args", "--params-file",
                              str(CONFIG / "franka.yaml"), *options], env=graph.environment, capture_output=True,
                             text=True, timeout=60)
    assert run.returncode == 2
    lines = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    assert len(lines) == 1 and message in lines[0], lines
