"""The newest picture and pose of the running graph, for tools that a person looks at."""

from __future__ import annotations

import time

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from sensor_msgs.msg import CameraInfo, Image

from safe_policy_core.errors import DeviceUnavailableError
from safe_policy_core.geometry import Pose
from safe_policy_ros import qos
from safe_policy_ros.messages import image_from_msg, pose_from_msg
from safe_policy_ros.spinner import Spinner

STALE_AFTER = 1.0
"""[s] What is older is not shown as if it were live."""


class CameraFeed:
    """A node of its own that listens until `close`."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("camera_check", context=self._context)
        self._newest: dict[str, tuple[object, float]] = {}
        for kind, topic in ((Image, "/camera/color/image_raw"), (CameraInfo, "/camera/color/camera_info"),
                            (PoseStamped, "/franka/current_pose")):
            self._node.create_subscription(kind, topic, self._keep, qos.SENSOR)
        self._spinner = Spinner(self._node)

    def _keep(self, message: object) -> None:
        self._newest[type(message).__name__] = message, time.monotonic()

    def _fresh(self, name: str) -> object | None:
        message, received = self._newest.get(name, (None, 0.0))
        return message if time.monotonic() - received < STALE_AFTER else None

    def picture(self) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB, None when none has come lately."""
        message = self._fresh("Image")
        return image_from_msg(message) if isinstance(message, Image) else None

    def tool(self) -> Pose | None:
        """The measured pose of the tool, None when the arm is silent or guided by hand at this moment."""
        message = self._fresh("PoseStamped")
        return pose_from_msg(message.pose) if isinstance(message, PoseStamped) else None

    def wait_for_picture(self, timeout: float) -> None:
        """Raises `DeviceUnavailableError`."""
        self._wait("Image", timeout, "/camera/color/image_raw: no picture")

    def intrinsics(self, timeout: float) -> tuple[np.ndarray, np.ndarray]:
        """Matrix (3, 3) [pixels] and distortion (5,). Raises `DeviceUnavailableError`."""
        self._wait("CameraInfo", timeout, "/camera/color/camera_info: no message")
        info = self._newest["CameraInfo"][0]
        assert isinstance(info, CameraInfo)
        return np.array(info.k, float).reshape(3, 3), np.array([*info.d, 0, 0, 0, 0, 0][:5], float)

    def _wait(self, name: str, timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while name not in self._newest:
            if time.monotonic() > deadline:
                raise DeviceUnavailableError(f"{what} within {timeout:g} s; is the graph running (python -m "
                                             "robot_bringup ...), in the same ROS_DOMAIN_ID?")
            time.sleep(0.05)

    def close(self) -> None:
        self._spinner.close()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)
