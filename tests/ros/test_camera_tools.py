"""`safe-policy camera` and `safe-policy calibrate` against a graph: pictures and poses come over DDS."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from safe_policy_ros import qos
from safe_policy_ros.messages import image_to_msg, pose_stamped
from sensor_msgs.msg import CameraInfo, Image

from data_collection.calibration.hand_eye import pose_of
from tests.data_collection import test_calibration as truth
from tests.ros.graph import Graph, ros_domain

pytestmark = pytest.mark.ros


class Scene:
    """A camera and an arm: what `show` was given last is published at 20 Hz."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("scene", context=self._context)
        self._images = self.node.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
        self._infos = self.node.create_publisher(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
        self._poses = self.node.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR)
        self._shown: tuple[np.ndarray, np.ndarray] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def show(self, image: np.ndarray, tool: np.ndarray) -> None:
        self._shown = image, tool

    def _run(self) -> None:
        info = CameraInfo(k=truth.CAMERA.matrix.ravel(), d=truth.CAMERA.distortion.tolist())
        while not self._closing.wait(0.05):
            if self._shown is not None:
                now = time.time_ns()
                self._images.publish(image_to_msg(self._shown[0], now))
                self._infos.publish(info)
                self._poses.publish(pose_stamped(pose_of(self._shown[1]), now))

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@contextlib.contextmanager
def scene(directory: Path) -> Iterator[tuple[Scene, Callable[..., subprocess.Popen[str]]]]:
    """The scene, and what starts `safe-policy` in its domain."""
    with ros_domain() as domain, contextlib.closing(Scene(domain)) as shown:
        graph = Graph(directory, domain)

        def command(*words: str) -> subprocess.Popen[str]:
            return subprocess.Popen([sys.executable, "-m", "safe_policy_core.cli", *words, "--json"],
                                    env=graph.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        yield shown, command


def test_the_camera_check_shows_the_live_picture(tmp_path: Path) -> None:
    with scene(tmp_path) as (shown, command):
        picture = np.full((480, 640, 3), (200, 100, 50), np.uint8)
        shown.show(picture, np.eye(4))
        reference = tmp_path / "reference.png"
        first = command("camera", "--seconds", "0.5", "--port", "0", "--save", str(reference),
                        "--crop", "0", "80", "480", "480")
        output, log = first.communicate(timeout=60)
        assert first.returncode == 0, log
        result = json.loads(output.splitlines()[-1])
        assert result["crop"] == [0, 80, 480, 480] and result["mean"] == [200, 100, 50] and result["problems"] == []
        assert "127.0.0.1" in log

        shown.show(picture + np.array([0, 0, 30], np.uint8), np.eye(4))
        second = command("camera", "--seconds", "2", "--port", "0", "--reference", str(reference))
        assert second.stderr is not None
        url = next(word for line in second.stderr for word in line.split() if word.startswith("http://"))
        state = json.load(urllib.request.urlopen(url + "state", timeout=5))
        assert state["difference"] == [0, 0, 30] and "blue is +30" in state["problems"][0]
        second.communicate(timeout=60)
        assert second.returncode == 0


def test_views_are_taken_while_the_arm_rests_and_solved(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tools = truth.tools(8, rng)
    pictures = [truth.render(tool, rng) for tool in tools]
    with scene(tmp_path) as (shown, command):
        shown.show(pictures[0], tools[0])
        run = command("calibrate", str(tmp_path / "views"), "--square", "0.03", "--marker", "0.022", "--count", "8")
        deadline = time.monotonic() + 60
        number = 0
        while run.poll() is None and time.monotonic() < deadline:
            shown.show(pictures[number % 8], tools[number % 8])
            time.sleep(0.9)
            number += 1
        output, log = run.communicate(timeout=10)
    assert run.returncode == 0, log
    result = json.loads(output.splitlines()[-1])
    assert result["views"] == 8 and "view 8 of 8" in log
    assert result["camera_in_base"]["position_m"] == pytest.approx(truth.EYE[:3, 3].tolist(), abs=1e-3)


def test_without_pictures_it_says_where_to_look(tmp_path: Path) -> None:
    with scene(tmp_path) as (_, command):
        run = command("camera", "--port", "0")
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 2 and "is the graph running" in json.loads(output.splitlines()[-1])["error"]
