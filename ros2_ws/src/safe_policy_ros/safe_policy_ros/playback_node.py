"""Plays a recorded episode into the running graph: its pictures, and on request its commands.

Pictures come again and again, as from a camera that looks at the recording. Once /playback/start is called, the
commands that had the arm, be they the policy's or the operator's, go to the gate on the operator's channel: the gate
checks and bounds them as it does live ones, and moves whatever arm there is. Stamps are those of the playing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from safe_policy_interfaces.msg import FrameStatus
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from data_collection.conversion.recording_file import RecordingFile
from safe_policy_core.errors import DatasetError
from safe_policy_ros import qos
from safe_policy_ros.messages import BASE_FRAME, ns_to_stamp, twist_from_msg
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare

NAME = "playback"
IMAGE, INFO = "/camera/color/image_raw", "/camera/color/camera_info"
POLICY, TELEOP = "/policy/delta_twist_cmds", "/teleop/delta_twist_cmds"
COMMANDS = (POLICY, TELEOP)
HOLD_NS = 500_000_000
"""[ns] The operator had the arm for so long after the last motion (teleop_hold of safety_gate.yaml)."""
REST = 0.03
"""[s] Between the end of the recording and the first picture of the next round."""


class PlaybackNode(Node):
    """Publishes /camera/color/{image_raw,camera_info}, /camera/frame_status and /teleop/delta_twist_cmds."""

    def __init__(self) -> None:
        super().__init__(NAME)
        path = declare(self, "episode", "", "recording (.mcap) to play")
        if not path:
            raise DatasetError("parameter episode: missing; give episode:=FILE.mcap to the launch file")
        self._pictures = declare(self, "pictures", True, "play the pictures; false where a camera node does")
        self._file = RecordingFile(Path(path))
        wanted = {IMAGE, INFO, *COMMANDS} if self._pictures else set(COMMANDS)
        self._topics = sorted(wanted & self._file.topics)
        if not self._topics:
            raise DatasetError(f"{path}: expected some of {', '.join(sorted(wanted))}, recorded are "
                               f"{', '.join(sorted(self._file.topics))}")
        if self._pictures:
            self._images = self.create_publisher(Image, IMAGE, qos.SENSOR)
            self._infos = self.create_publisher(CameraInfo, INFO, qos.SENSOR)
            self._statuses = self.create_publisher(FrameStatus, "/camera/frame_status", qos.SENSOR)
        self._commands = self.create_publisher(TwistStamped, "/teleop/delta_twist_cmds", qos.COMMAND)
        self.create_service(Trigger, "~/start", self._on_start)
        self._start = threading.Event()
        self._driving = False
        self._sequence = self._sent = 0
        self._round: Iterator[tuple[int, str, str, bytes]] | None = None
        self._begun = 0.0
        self._operator_until = 0
        self._first: int | None = None
        self.get_logger().info(f"ready, plays {path}; /playback/start sends its commands")

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = bool(set(COMMANDS) & set(self._topics))
        response.message = "from the start" if response.success else "the recording holds no commands"
        if response.success:
            self._start.set()
        return response

    def work(self) -> bool:
        """Plays one message at its time; called again and again by the main thread."""
        if self._start.is_set():
            self._start.clear()
            self._driving, self._sent, self._round, self._operator_until = True, 0, None, 0
        if self._round is None:
            self._round = self._file.raw(self._topics)
            self._begun, self._first = time.monotonic(), None
        entry = next(self._round, None)
        if entry is None:
            self._end_round()
            return True
        time_ns, topic, _, data = entry
        self._first = time_ns if self._first is None else self._first
        # A pause in the recording is waited for in pieces, so that a call is heard.
        while (wait := self._begun + (time_ns - self._first) * 1e-9 - time.monotonic()) > 0:
            if self._start.wait(wait):
                return True
        self._publish(topic, data, time_ns)
        return True

    def _publish(self, topic: str, data: bytes, time_ns: int) -> None:
        stamp = ns_to_stamp(self.get_clock().now().nanoseconds)
        if topic == IMAGE:
            image = deserialize_message(data, Image)
            image.header.stamp = stamp
            self._sequence += 1
            self._statuses.publish(FrameStatus(header=image.header, sequence=self._sequence))
            self._images.publish(image)
        elif topic == INFO:
            info = deserialize_message(data, CameraInfo)
            info.header.stamp = stamp
            self._infos.publish(info)
        elif self._driving:
            twist = deserialize_message(data, TwistStamped)
            if topic == TELEOP and twist_from_msg(twist.twist).any():
                self._operator_until = time_ns + HOLD_NS
            if (topic == TELEOP) != (time_ns < self._operator_until):
                return  # the other one had the arm
            twist.header.stamp = stamp
            self._commands.publish(twist)
            self._sent += 1

    def _end_round(self) -> None:
        if self._driving:
            self._driving = False
            rest = TwistStamped()
            rest.header.frame_id, rest.header.stamp = BASE_FRAME, ns_to_stamp(self.get_clock().now().nanoseconds)
            self._commands.publish(rest)
            self.get_logger().info(f"played to its end, {self._sent} commands")
        self._round = None
        self._start.wait(REST)

    def close(self) -> None:
        """Nothing is held."""


def _work(node: Node) -> bool:
    assert isinstance(node, PlaybackNode)
    return node.work()


def main() -> None:
    sys.exit(run_node(PlaybackNode, NAME, _work))


if __name__ == "__main__":
    main()
