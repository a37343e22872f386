"""Publishes one camera's pictures, stamped at capture."""

from __future__ import annotations

import sys
import time

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from safe_policy_core.scheduling import CAMERA_PRIORITY
from safe_policy_ros import qos
from safe_policy_ros.cameras import CAMERAS, CameraConfig, open_camera
from safe_policy_ros.cameras.camera import Calibration, EndOfRecording, Frame
from safe_policy_ros.messages import image_to_msg
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare

NAME = "camera"
WAIT = 0.5
"""[s] How long one reading may block: as long as a signal may go unnoticed."""


class CameraNode(Node):
    """Reads the camera in the process's main thread, so that no callback delays a picture."""

    def __init__(self) -> None:
        super().__init__(NAME)
        default = CameraConfig()
        name = declare(self, "camera", "simulated", f"one of {', '.join(CAMERAS)}")
        config = CameraConfig(
            width=declare(self, "width", default.width, "[pixels]; 0 for the camera's own", 0, 1920),
            height=declare(self, "height", default.height, "[pixels]; 0 for the camera's own", 0, 1080),
            fps=declare(self, "fps", default.fps, "pictures in a second", 1.0, 90.0),
            address=declare(self, "address", default.address, "of the simulated scene; '' for its default"),
            serial=declare(self, "serial", default.serial, "of the RealSense to open; '' for the first"),
            exposure=declare(self, "exposure", default.exposure, "of a RealSense [us]; 0 for automatic", 0, 165000),
            file=declare(self, "file", default.file, "a recorded .db3 to play in place of a RealSense"),
            repeat=declare(self, "repeat", default.repeat, "play the file again and again"),
            topic=declare(self, "topic", default.topic, "image topic of a camera node that runs already"))
        self._images = self.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
        self._infos = self.create_publisher(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
        self._camera = open_camera(name, config, self)
        self._count, self._first, self._last, self._gap = 0, 0.0, time.monotonic(), 0.0
        self.get_logger().info(f"ready, camera {name}")

    def work(self) -> bool:
        """Passes on the next picture; False at the end of a file."""
        try:
            frame = self._camera.read(WAIT)
        except EndOfRecording as end:
            self.get_logger().info(f"{end}: played to its end")
            return False
        now = time.monotonic()
        if frame is None:
            if now - self._last > 2 * WAIT:
                self.get_logger().error(f"no picture for {now - self._last:.1f} s", throttle_duration_sec=2.0)
            return True
        self._publish(frame)
        if self._count:
            self._gap = max(self._gap, now - self._last)
        else:
            self._first = now
        self._count += 1
        self._last = now
        return True

    def _publish(self, frame: Frame) -> None:
        message = image_to_msg(frame.image, frame.time_ns)
        info = _info(self._camera.calibration)
        info.header = message.header
        self._images.publish(message)
        self._infos.publish(info)

    def close(self) -> None:
        span = self._last - self._first
        if self._count > 1 and span > 0:
            self.get_logger().info(f"{self._count} pictures in {span:.1f} s: {(self._count - 1) / span:.1f} a second, "
                                   f"longest gap {self._gap * 1000:.0f} ms")
        self._camera.close()


def _info(calibration: Calibration) -> CameraInfo:
    c = calibration
    return CameraInfo(width=c.width, height=c.height, distortion_model="plumb_bob", d=list(c.distortion),
                      k=[c.fx, 0.0, c.cx, 0.0, c.fy, c.cy, 0.0, 0.0, 1.0],
                      r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                      p=[c.fx, 0.0, c.cx, 0.0, 0.0, c.fy, c.cy, 0.0, 0.0, 0.0, 1.0, 0.0])


def main() -> None:
    sys.exit(run_node(CameraNode, NAME, work=CameraNode.work, priority=CAMERA_PRIORITY))


if __name__ == "__main__":
    main()
