"""Load of the camera's and the recorder's processes for `make bench`: real processes over DDS, 640x480 at 30 Hz."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from safe_policy_interfaces.msg import EpisodeState, FrameStatus
from sensor_msgs.msg import Image

from robot_bringup.environment import INSTALL, ros_environment
from safe_policy_ros import qos
from safe_policy_ros.cameras.software_device import FPS, HEIGHT, WIDTH, record
from safe_policy_ros.messages import image_to_msg, ns_to_stamp
from safe_policy_ros.spinner import Spinner

SECONDS = 8.0
"""Length of one measurement."""
DOMAIN = 58
START_TIMEOUT = 60.0


def rows() -> list[dict[str, Any]]:
    pictures = _pictures()
    with tempfile.TemporaryDirectory() as folder, _listener() as node:
        return [_row("camera node, RealSense file 640x480 at 30 Hz", _camera_load(Path(folder), node, pictures)),
                _row("recorder node, 640x480 at 30 Hz and 200 poses/s", _recorder_load(Path(folder), node, pictures))]


def _pictures() -> list[np.ndarray]:
    """30 pictures of blocks that move, with a sensor's noise of a grey level or two."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 250, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(0, 3, (HEIGHT, WIDTH, 3), np.uint8)
    return [np.roll(texture, 4 * i, axis=1) + np.roll(noise, 37 * i, axis=0) for i in range(FPS)]


@contextlib.contextmanager
def _listener() -> Iterator[Any]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = rclpy.create_node("benchmark", context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@contextlib.contextmanager
def _process(executable: str, **parameters: Any) -> Iterator[subprocess.Popen[bytes]]:
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    process = subprocess.Popen([str(INSTALL / "lib" / "safe_policy_ros" / executable), "--ros-args", *words],
                               env=ros_environment(os.environ) | {"ROS_DOMAIN_ID": str(DOMAIN)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(15)


def _share_of_a_core(pid: int, work: Any) -> float:
    """Processor time of a process while `work` runs for `SECONDS`, in percent of one core."""
    def spent() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began = spent(), time.monotonic()
    work()
    return 100 * (spent() - before) / (time.monotonic() - began)


def _camera_load(folder: Path, node: Any, pictures: list[np.ndarray]) -> float:
    path = folder / "camera.db3"
    record(path, pictures)
    count: list[int] = []
    taken = node.create_subscription(Image, "/camera/color/image_raw", lambda _: count.append(1), qos.SENSOR)
    status = node.create_subscription(FrameStatus, "/camera/frame_status", lambda _: None, qos.SENSOR)
    spinner = Spinner(node)
    with _process("camera_node", camera="realsense", file=path, repeat="true") as process:
        _wait(lambda: len(count) > FPS, "pictures")
        first = len(count)
        load = _share_of_a_core(process.pid, lambda: time.sleep(SECONDS))
        shown = (len(count) - first) / SECONDS
    spinner.close()
    node.destroy_subscription(taken)
    node.destroy_subscription(status)
    if shown < 0.8 * FPS:
        raise RuntimeError(f"benchmark: expected about {FPS} pictures a second, got {shown:.1f}")
    return load


def _recorder_load(folder: Path, node: Any, pictures: list[np.ndarray]) -> float:
    images = node.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
    poses = [node.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR),
             node.create_publisher(PoseStamped, "/franka/target_pose", qos.COMMAND)]
    states = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
    with _process("recorder_node", directory=folder, convert="false") as process:
        _wait(lambda: images.get_subscription_count() and states.get_subscription_count(), "the recorder")
        state = EpisodeState(phase=EpisodeState.RUNNING, episode_id="benchmark", task="original", metadata_json="{}")
        state.header.stamp = ns_to_stamp(time.time_ns())
        states.publish(state)

        def stream() -> None:
            began = time.monotonic()
            for tick in range(round(SECONDS * 300)):
                time.sleep(max(0.0, began + tick / 300 - time.monotonic()))
                now = time.time_ns()
                if tick % 10 == 0:
                    images.publish(image_to_msg(pictures[tick // 10 % len(pictures)], now))
                if tick % 3 == 0:
                    message = PoseStamped()
                    message.header.stamp = ns_to_stamp(now)
                    for publisher in poses:
                        publisher.publish(message)

        load = _share_of_a_core(process.pid, stream)
        state.phase = EpisodeState.ENDED
        states.publish(state)
        time.sleep(1.0)
    size = sum(path.stat().st_size for path in folder.glob("*.mcap"))
    if size < 0.5 * SECONDS * FPS * HEIGHT * WIDTH:
        raise RuntimeError(f"benchmark: expected a recording of {SECONDS:g} s, got {size} bytes")
    return load


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"benchmark: {what}: not within {START_TIMEOUT:g} s")
        time.sleep(0.02)


def _row(name: str, value: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "% of a core", "peer": None, "peer_value": None, "ratio": None}
