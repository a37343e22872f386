"""Cameras by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rclpy.node import Node

from safe_policy_core.errors import ConfigurationError
from safe_policy_ros.cameras.camera import Camera


@dataclass(frozen=True)
class CameraConfig:
    """Options of all cameras; each reads those that concern it.

    width, height [pixels; 0 for the camera's own] and fps [1/s]: simulated and realsense. address: the
    simulated scene's. serial: the RealSense to open, "" for the first. exposure [us], white_balance [K]: 0 for
    automatic. file: a recorded .db3 in place of the device; repeat: play it again and again. topic: of a running
    camera node.
    """

    width: int = 0
    height: int = 0
    fps: float = 30.0
    address: str = ""
    serial: str = ""
    exposure: int = 0
    white_balance: int = 0
    file: str = ""
    repeat: bool = False
    topic: str = ""


# Imported when asked for: a robot without MuJoCo, or a simulator without librealsense, runs too.

def _simulated(config: CameraConfig, node: Node) -> Camera:
    from safe_policy_ros.cameras.simulated import SimulatedCamera
    return SimulatedCamera(config)


def _realsense(config: CameraConfig, node: Node) -> Camera:
    from safe_policy_ros.cameras.realsense import RealSenseCamera
    return RealSenseCamera(config)


def _ros_topic(config: CameraConfig, node: Node) -> Camera:
    from safe_policy_ros.cameras.ros_topic import RosTopicCamera
    return RosTopicCamera(config, node)


CAMERAS: dict[str, Callable[[CameraConfig, Node], Camera]] = {
    "simulated": _simulated, "realsense": _realsense, "ros_topic": _ros_topic}


def open_camera(name: str, config: CameraConfig, node: Node) -> Camera:
    """Raises `ConfigurationError` for an unknown name and `DeviceUnavailableError` when it cannot be opened."""
    if name not in CAMERAS:
        raise ConfigurationError(f"parameter camera: unknown {name!r}, expected one of {', '.join(CAMERAS)}")
    return CAMERAS[name](config, node)
