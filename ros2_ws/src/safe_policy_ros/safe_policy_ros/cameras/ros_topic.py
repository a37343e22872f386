"""The pictures of a camera node that runs already, such as realsense-ros."""

from __future__ import annotations

import contextlib
import queue

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError
from safe_policy_ros import qos
from safe_policy_ros.cameras.camera import Calibration, Camera, Frame
from safe_policy_ros.cameras.factory import CameraConfig
from safe_policy_ros.messages import image_from_msg, stamp_to_ns


class RosTopicCamera(Camera):
    """Passes pictures on with their own stamps; `camera_info` is looked for beside the image topic.

    The node's callbacks must run in another thread than `read`.
    """

    def __init__(self, config: CameraConfig, node: Node) -> None:
        if not config.topic:
            raise ConfigurationError("parameter topic: missing; name the image topic of the running camera node")
        self._topic = config.topic
        # Only the newest picture counts; a picture that nobody took in time is replaced.
        self._newest: queue.Queue[Image] = queue.Queue(1)
        self._info: CameraInfo | None = None
        self._size = (config.width, config.height)
        namespace = config.topic.rsplit("/", 1)[0]
        self._node = node
        self._subscriptions = [
            node.create_subscription(Image, config.topic, self._on_image, qos.SENSOR),
            node.create_subscription(CameraInfo, f"{namespace}/camera_info", self._on_info, qos.SENSOR)]

    def _on_image(self, message: Image) -> None:
        if self._newest.full():
            with contextlib.suppress(queue.Empty):
                self._newest.get_nowait()
        self._newest.put(message)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    @property
    def calibration(self) -> Calibration:
        if (info := self._info) is None:
            return Calibration(*self._size, 0.0, 0.0, 0.0, 0.0)  # ROS's mark of an uncalibrated camera: K = 0
        d = (*info.d, 0.0, 0.0, 0.0, 0.0, 0.0)
        return Calibration(info.width, info.height, info.k[0], info.k[4], info.k[2], info.k[5], tuple(d[:5]))

    def read(self, timeout: float) -> Frame | None:
        try:
            message = self._newest.get(timeout=timeout)
        except queue.Empty:
            return None
        try:
            image = image_from_msg(message)
        except ValueError as error:
            raise DeviceUnavailableError(f"{self._topic}: {error}") from error
        self._size = image.shape[1], image.shape[0]
        return Frame(image, stamp_to_ns(message.header.stamp))

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
