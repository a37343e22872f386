"""A recorded episode, started by its launch file: pictures and commands through the live gate and a fake arm."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from rclpy.serialization import serialize_message
from safe_policy_interfaces.msg import FrameStatus, GateStatus
from safe_policy_ros import qos
from safe_policy_ros.messages import image_from_msg, image_to_msg, pose_from_msg, stamp_to_ns, twist_stamped
from safe_policy_ros.spinner import Spinner, wait_for_server
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from data_collection.recording import McapEpisodeWriter
from tests.ros.graph import ros_graph, wait_for

pytestmark = pytest.mark.ros
SPEED = np.array([0.04, 0.02, 0, 0, 0, 0])
SECONDS = 1.0


@pytest.fixture
def episode(tmp_path: Path) -> Path:
    """One second at 30 pictures; the policy wants to go back while the operator drives forwards."""
    path = tmp_path / "episode.mcap"
    writer = McapEpisodeWriter(path, {"episode_id": "episode", "task": "original"})
    start = 1_700_000_000_000_000_000
    rows = [(start + i * 33_333_333, "/camera/color/image_raw", "sensor_msgs/msg/Image",
             image_to_msg(np.full((48, 64, 3), 8 * i, np.uint8), start)) for i in range(30)]
    rows += [(start + i * 50_000_000, "/teleop/delta_twist_cmds", "geometry_msgs/msg/TwistStamped",
              twist_stamped(SPEED, start)) for i in range(round(SECONDS * 20))]
    rows += [(start + i * 100_000_000 + 1, "/policy/delta_twist_cmds", "geometry_msgs/msg/TwistStamped",
              twist_stamped(-SPEED, start)) for i in range(round(SECONDS * 10))]
    for time_ns, topic, kind, message in sorted(rows, key=lambda row: row[0]):
        writer.write(topic, kind, serialize_message(message), time_ns)
    return writer.close()


class Listener:
    """Hears the graph and calls its services."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("listener", context=self._context)
        self.states, self.poses, self.images, self.statuses, self.twists = [], [], [], [], []
        for kind, topic, sink, profile in (
                (GateStatus, "/safety_gate/status", self.states, qos.STATUS),
                (PoseStamped, "/franka/current_pose", self.poses, qos.SENSOR),
                (Image, "/camera/color/image_raw", self.images, qos.SENSOR),
                (FrameStatus, "/camera/frame_status", self.statuses, qos.SENSOR),
                (TwistStamped, "/teleop/delta_twist_cmds", self.twists, qos.COMMAND)):
            self.node.create_subscription(kind, topic, sink.append, profile)
        self._spinner = Spinner(self.node)

    def position(self) -> np.ndarray:
        return pose_from_msg(self.poses[-1].pose).position

    def call(self, service: str) -> Trigger.Response:
        client = self.node.create_client(Trigger, service)
        wait_for_server(client.service_is_ready, 20.0, service)
        return self._spinner.wait(client.call_async(Trigger.Request()), 5.0, service)

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def test_a_recorded_episode_moves_the_fake_arm_through_the_gate(tmp_path: Path, episode: Path) -> None:
    with ros_graph(tmp_path) as graph, contextlib.closing(Listener(graph.domain)) as listener:
        launch = graph.python("launch", "-m", "robot_bringup", "safe_reach_recorded", f"episode:={episode}")
        wait_for(lambda: "everything is up" in launch.output or launch.poll() is not None, 60.0, "the start")
        assert launch.poll() is None, launch.output
        wait_for(lambda: len(listener.images) > 35, 10.0, "pictures, again and again")
        shown = [int(image_from_msg(image)[0, 0, 0]) for image in listener.images]
        assert set(shown) <= set(range(0, 240, 8)) and len(set(shown)) > 20
        numbers = [status.sequence for status in listener.statuses]
        assert (np.diff(numbers) > 0).all() and not any(status.repeated for status in listener.statuses)
        assert abs(stamp_to_ns(listener.images[-1].header.stamp) - time.time_ns()) < 2e9, "stamped when it was played"
        assert listener.twists == [], "no commands before they are asked for"

        wait_for(lambda: listener.call("/safety_gate/arm").success, 20.0, "arming")
        before = listener.position()
        assert listener.call("/playback/start").success
        wait_for(lambda: "played to its end" in launch.output, 10.0, "the end")
        time.sleep(0.4)
        moved = listener.position() - before
        assert moved == pytest.approx(SPEED[:3] * SECONDS, abs=0.01), "the operator had the arm, not the policy"
        assert listener.states[-1].state == GateStatus.HOLD, listener.states[-1].reason


@pytest.mark.parametrize(("parameters", "message"), [
    ({}, "parameter episode: missing"), ({"episode": "/nowhere.mcap"}, "/nowhere.mcap: no such recording")])
def test_what_cannot_be_played_is_one_line(tmp_path: Path, parameters: dict[str, str], message: str) -> None:
    with ros_graph(tmp_path) as graph:
        node = graph.node("playback_node", **parameters)
        assert node.wait(30.0) == 2
        assert message in node.output and "Traceback" not in node.output
