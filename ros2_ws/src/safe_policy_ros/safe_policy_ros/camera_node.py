"""Publishes one camera's pictures, stamped at capture, and says of each whether it is new."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from safe_policy_interfaces.msg import FrameStatus
from sensor_msgs.msg import CameraInfo, Image

from safe_policy_core.errors import DeviceUnavailableError
from safe_policy_core.scheduling import CAMERA_PRIORITY
from safe_policy_ros import health, qos
from safe_policy_ros.cameras import CAMERAS, Camera, CameraConfig, open_camera
from safe_policy_ros.cameras.camera import Calibration, EndOfRecording, Frame
from safe_policy_ros.cameras.frozen import FrozenWatch, Seen
from safe_policy_ros.cameras.record import FrameRecord
from safe_policy_ros.managed_node import ManagedNode
from safe_policy_ros.messages import image_to_msg
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare

T = TypeVar("T")
NAME = "camera"
WAIT = 0.2
"""[s] How long one reading may block: as long as a signal may go unnoticed."""
RETRY_PERIOD = 1.0
"""[s] Between two attempts to open a camera that was lost."""
REPORT_PERIOD = 1.0


class CameraNode(ManagedNode):
    """Reads the camera in the process's main thread, so that no callback delays a picture.

    A repeated picture is told on /camera/frame_status and not shown: whoever waits for a new one sees that none comes.
    A camera that is lost is opened again and again; the safety gate has stopped the arm by then.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        default = CameraConfig()
        self._kind = declare(self, "camera", "simulated", f"one of {', '.join(CAMERAS)}")
        self._config = CameraConfig(
            width=declare(self, "width", default.width, "[pixels]; 0 for the camera's own", 0, 1920),
            height=declare(self, "height", default.height, "[pixels]; 0 for the camera's own", 0, 1080),
            fps=declare(self, "fps", default.fps, "pictures in a second", 1.0, 90.0),
            address=declare(self, "address", default.address, "of the simulated scene; '' for its default"),
            serial=declare(self, "serial", default.serial, "of the RealSense to open; '' for the first"),
            exposure=declare(self, "exposure", default.exposure, "of a RealSense [us]; 0 for automatic", 0, 165000),
            white_balance=declare(self, "white_balance", default.white_balance, "of a RealSense [K]; 0 for automatic",
                                  0, 10000),
            file=declare(self, "file", default.file, "a recorded .db3 to play in place of a RealSense"),
            repeat=declare(self, "repeat", default.repeat, "play the file again and again"),
            topic=declare(self, "topic", default.topic, "image topic of a camera node that runs already"))
        self._identical = declare(self, "identical_frames", 3, "pictures in a row that are equal byte for byte and so "
                                  "mean a frozen camera; 0 for never; a simulated camera has no noise and is exempt",
                                  0, 100)
        self._camera: Camera | None = None
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._configured = False
        self._retry_at = 0.0
        self.start_if_told()

    # Lifecycle

    def configure(self) -> None:
        self._camera = self._in_main_thread(lambda: open_camera(self._kind, self._config, self))
        self._watch = FrozenWatch(self._identical if self._camera.noisy else 0)
        self._record = FrameRecord(self._config.fps)
        self._images = self.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
        self._infos = self.create_publisher(CameraInfo, "/camera/color/camera_info", qos.SENSOR)
        self._statuses = self.create_publisher(FrameStatus, "/camera/frame_status", qos.SENSOR)
        self._reports = self.create_publisher(DiagnosticArray, health.TOPIC, qos.STATUS)
        self._configured = True

    def activate(self) -> None:
        self.get_logger().info(f"ready, camera {self._kind}")

    def cleanup(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            self._in_main_thread(camera.close)
        if self._configured:
            self._configured = False
            if summary := self._record.summary():
                self.get_logger().info(summary)
            for publisher in (self._images, self._infos, self._statuses, self._reports):
                self.destroy_publisher(publisher)

    def _in_main_thread(self, job: Callable[[], T]) -> T:
        """A lifecycle step runs in the thread of ROS, but a renderer belongs to the thread that opened it."""
        if threading.current_thread() is threading.main_thread():
            return job()
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future.result()

    def _do_jobs(self) -> None:
        while not self._jobs.empty():
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except Exception as error:  # it is raised where the job came from
                future.set_exception(error)

    # Pictures

    def work(self) -> bool:
        """Passes on the next picture; False at the end of a file."""
        self._do_jobs()
        if not self.active:
            time.sleep(0.02)
            return True
        now = time.monotonic()
        if self._record.due(now, REPORT_PERIOD):
            self._reports.publish(self._record.report(self._kind, self._clock_ns()))
        try:
            camera = self._camera or self._reopen(now)
            frame = camera.read(WAIT) if camera is not None else None
        except EndOfRecording as end:
            self.get_logger().info(f"{end}: played to its end")
            return False
        except DeviceUnavailableError as error:
            self._lose(error)
            return True
        if frame is not None:
            self._publish(frame)
        return True

    def _reopen(self, now: float) -> Camera | None:
        """Raises `DeviceUnavailableError` when the camera is still away."""
        if now < self._retry_at:
            time.sleep(min(WAIT, self._retry_at - now))
            return None
        self._retry_at = now + RETRY_PERIOD
        self._camera = open_camera(self._kind, self._config, self)
        self._record.trouble = ""
        self.get_logger().warning("the camera is back")
        return self._camera

    def _lose(self, error: DeviceUnavailableError) -> None:
        if not self._record.trouble:
            self.get_logger().error(f"{error}; trying again every {RETRY_PERIOD:g} s")
        self._record.trouble = str(error)
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def _publish(self, frame: Frame) -> None:
        seen = self._watch.look(frame)
        self._record.add(seen, time.monotonic(), frame.time_ns, time.time_ns())
        if seen.repeated and self._record.repeated_in_a_row == 1:
            self.get_logger().error("the camera is frozen: it repeats a picture")
        assert self._camera is not None
        message = image_to_msg(frame.image, frame.time_ns)
        # The status first: it is small, and the safety gate waits for it.
        self._statuses.publish(_status(seen, message))
        if seen.repeated:
            return
        self._images.publish(message)
        info = _info(self._camera.calibration)
        info.header = message.header
        self._infos.publish(info)

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _status(seen: Seen, message: Image) -> FrameStatus:
    return FrameStatus(header=message.header, sequence=seen.sequence, repeated=seen.repeated)


def _info(calibration: Calibration) -> CameraInfo:
    c = calibration
    return CameraInfo(width=c.width, height=c.height, distortion_model="plumb_bob", d=list(c.distortion),
                      k=[c.fx, 0.0, c.cx, 0.0, c.fy, c.cy, 0.0, 0.0, 1.0],
                      r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                      p=[c.fx, 0.0, c.cx, 0.0, 0.0, c.fy, c.cy, 0.0, 0.0, 0.0, 1.0, 0.0])


def _work(node: Node) -> bool:
    assert isinstance(node, CameraNode)
    return node.work()


def main() -> None:
    sys.exit(run_node(CameraNode, NAME, _work, priority=CAMERA_PRIORITY))


if __name__ == "__main__":
    main()
