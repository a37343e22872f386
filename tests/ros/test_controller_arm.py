"""The arm's process in front of a ros2_control controller: a stand-in of CRISP's as a process of its own, over DDS."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from safe_policy_ros.messages import pose_stamped

from safe_policy_core.geometry import Pose
from tests.ros.arm_probe import START_TIMEOUT, ArmProbe
from tests.ros.graph import ARM, Graph, Process, ros_graph, wait_for

pytestmark = pytest.mark.ros
NAMESPACE = "left"
TRACKING_TOLERANCE = 0.003
"""[m]"""


class Rig:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.controller = graph.python("controller", "tests/ros/crisp_controller.py", NAMESPACE)
        self.node: Process = graph.node("franka_node", parameters=ARM, backend="ros2_control",
                                        controller_namespace=NAMESPACE,
                                        wrench_topic=f"/{NAMESPACE}/external_wrench_in_base_frame")
        self.probe = ArmProbe(graph.domain)
        wait_for(lambda: "ready" in self.node.output or self.node.poll() is not None, START_TIMEOUT, "franka_node")
        assert self.node.poll() is None, self.node.output
        wait_for(lambda: self.probe.node.count_subscribers("/franka/target_pose") == 1, START_TIMEOUT, "connection")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with ros_graph(tmp_path_factory.mktemp("controller")) as graph:
        rig = Rig(graph)
        with contextlib.closing(rig.probe):
            yield rig


def test_its_state_is_passed_on_in_our_frame_and_order(rig: Rig) -> None:
    probe = rig.probe
    np.testing.assert_allclose(probe.pose.position, [0.5, -0.105, 0.036], atol=1e-6)
    wait_for(lambda: probe.joints and probe.wrenches, 5.0, "joints and wrench")
    assert list(probe.joints[-1].name) == [f"fr3_joint{i}" for i in range(1, 8)]
    np.testing.assert_allclose(probe.joints[-1].position, 0.1 * np.arange(7))
    assert probe.wrenches[-1].wrench.force.z == -1.5
    # Starting processes take the processor: the first half second says little of the rate.
    begun = len(probe.poses)
    wait_for(lambda: len(probe.poses) > begun + 50, 5.0, "poses")
    first = len(probe.poses)
    time.sleep(1.0)
    assert 60 <= len(probe.poses) - first <= 105, "100 Hz, however fast the controller is"


def test_targets_move_it_and_silence_stops_it_where_it_is(rig: Rig) -> None:
    probe = rig.probe
    start = probe.pose
    end = probe.ramp(start, (0.05, 0.0, 0.0), 0.5)
    probe.hold(end, 0.4)
    assert np.linalg.norm(probe.pose.position - end.position) < TRACKING_TOLERANCE
    probe.ramp(end, (-0.03, 0.0, 0.0), 0.3)
    silent = time.monotonic()
    wait_for(lambda: "tracking ended: no target" in rig.node.output, 2.0, "the end of the tracking")
    time.sleep(0.4)
    assert max(speed for t, speed in probe.speeds(silent) if t > 0.4) < 0.002, "at rest"
    _, _, values = probe.health()
    assert values["tracking"] == "False" and "no target" in values["last_event"]


def test_a_rival_of_the_controllers_target_is_a_fault(rig: Rig) -> None:
    probe, rest = rig.probe, rig.probe.pose
    rival = probe.node.create_publisher(PoseStamped, f"/{NAMESPACE}/target_pose", QoSProfile(depth=1))
    wait_for(lambda: "has another publisher" in rig.node.output, 5.0, "the fault")
    count = len(probe.poses)
    rival.publish(pose_stamped(Pose(rest.position + np.array([0, 0.02, 0]), rest.quaternion), 1, "base"))
    time.sleep(0.5)
    assert len(probe.poses) <= count + 2, "no pose is published, so the gate faults"
    assert probe.health()[0] == b"\x02"
    probe.node.destroy_publisher(rival)
    wait_for(lambda: len(probe.poses) > count + 20, 5.0, "poses again")
    answer = probe.call("recover")
    assert not answer.success and "error_recovery" in answer.message, "errors are cleared at the driver, not here"


def test_a_hung_controller_ends_the_process_with_one_line(rig: Rig) -> None:
    rig.probe.hold(rig.probe.pose, 0.2)
    rig.controller.signal(signal.SIGSTOP)
    assert rig.node.wait(8.0) == 2
    fatal = [line for line in rig.node.output.splitlines() if "[FATAL]" in line]
    assert len(fatal) == 1 and "silent" in fatal[0] and "Traceback" not in rig.node.output


def test_without_a_controller_it_says_what_is_missing(tmp_path: Path) -> None:
    with ros_graph(tmp_path) as graph:
        node = graph.node("franka_node", parameters=ARM, backend="ros2_control", connect_timeout=1.0)
        assert node.wait(30.0) == 2, node.output
        assert re.search(r"nothing on /current_pose, .*/joint_states within 1 s", node.output)
