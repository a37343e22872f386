"""What is plugged in and what runs: the SpaceMouse, the camera."""

from __future__ import annotations

import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from robot_bringup.preflight.check import Check, green, red

IMAGE_TOPIC = "/camera/color/image_raw"
RATE_TOLERANCE = 0.1
"""Share by which the camera may be slower than it should."""
LONGEST_GAP = 3.0
"""Frame intervals: the gate stops the arm after 200 ms without a picture."""


def camera_times(seconds: float, topic: str = IMAGE_TOPIC) -> list[tuple[float, float]]:
    """(time of receipt, stamp) [s] of each picture that the running camera node sends.

    Raises `ModuleNotFoundError` outside the ROS environment.
    """
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    heard: list[tuple[float, float]] = []
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node("preflight_camera", context=context)
        node.create_subscription(
            Image, topic,
            lambda m: heard.append((time.monotonic(), m.header.stamp.sec + m.header.stamp.nanosec * 1e-9)),
            qos_profile_sensor_data)
        executor = rclpy.executors.SingleThreadedExecutor(context=context)
        executor.add_node(node)
        discovery = time.monotonic() + 3.0
        while not heard and time.monotonic() < discovery:
            executor.spin_once(timeout_sec=0.1)
        heard.clear()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    return heard


def camera(times: Sequence[tuple[float, float]], expected_rate: float) -> Check:
    """times: of `camera_times`; expected_rate: pictures a second."""
    name = "camera"
    if len(times) < 2:
        return red(name, f"{len(times)} pictures on {IMAGE_TOPIC}", "start the graph (camera_node), check the camera's "
                   "cable (USB 3) and that `safe-policy preflight` has the graph's ROS_DOMAIN_ID")
    received = [arrival for arrival, _ in times]
    gaps = [after - before for before, after in itertools.pairwise(received)]
    rate, longest = (len(times) - 1) / (received[-1] - received[0]), max(gaps)
    found = f"{rate:.1f} pictures/s, median {statistics.median(gaps) * 1e3:.0f} ms, longest gap {longest * 1e3:.0f} ms"
    if len({stamp for _, stamp in times}) < len(times):
        return red(name, f"{found}, and some of them twice", "the camera is frozen or a second node publishes on "
                   f"{IMAGE_TOPIC}")
    if rate < (1 - RATE_TOLERANCE) * expected_rate or longest > LONGEST_GAP / expected_rate:
        return red(name, f"{found}; expected {expected_rate:g} pictures/s without gaps over "
                   f"{LONGEST_GAP / expected_rate * 1e3:.0f} ms",
                   "plug the camera into a USB 3 port of its own, fix its exposure below the frame time, free the CPU")
    return green(name, found)


def spacemouse(seconds: float, tell: Callable[[str], None],
               open_device: Callable[[], Any] | None = None) -> Check:
    """Watches the device while the operator moves it. open_device: in place of the first SpaceMouse found."""
    name = "SpaceMouse"
    factory = importlib.import_module("data_collection.devices.factory")
    unavailable = importlib.import_module("safe_policy_core.errors").DeviceUnavailableError
    try:
        device = open_device() if open_device is not None else factory.open_device("spacemouse")
    except unavailable as error:
        problem, _, remedy = str(error).partition("; ")
        return red(name, problem, remedy or "plug it in")
    tell(f"move the SpaceMouse for {seconds:g} s")
    try:
        moved, end = False, time.monotonic() + seconds
        while not moved and (now := time.monotonic()) < end:
            moved = device.read(now).moving
            time.sleep(0.01)
        health = device.health()
    except unavailable as error:
        return red(name, str(error), "check its cable")
    finally:
        device.close()
    if moved:
        return green(name, "it moves")
    problem, _, remedy = health.partition("; ")
    return red(name, problem or f"no motion within {seconds:g} s",
               remedy or "move its cap while this check runs; if you did, stop `spacenavd`, and charge a wireless one")
