"""Conversion between ROS messages and the library's types: the only place that knows both."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMsg
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from sensor_msgs.msg import Image

from data_collection.pixels import rgb_from_bytes
from safe_policy_core.geometry import Pose

BASE_FRAME = "fr3_link0"
CAMERA_FRAME = "camera_color_optical_frame"
NANOSECONDS = 1_000_000_000


def stamp_to_ns(stamp: Time) -> int:
    """Nanoseconds since the epoch."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def ns_to_stamp(time_ns: int) -> Time:
    """Inverse of `stamp_to_ns`."""
    seconds, nanoseconds = divmod(int(time_ns), NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def pose_to_msg(pose: Pose) -> PoseMsg:
    message = PoseMsg()
    message.position.x, message.position.y, message.position.z = (float(v) for v in pose.position)
    q = message.orientation
    q.x, q.y, q.z, q.w = (float(v) for v in pose.quaternion)
    return message


def pose_from_msg(message: PoseMsg) -> Pose:
    """Raises `ValueError` for a position that is not finite or a quaternion that is not of unit length."""
    p, q = message.position, message.orientation
    position, quaternion = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    norm = float(np.linalg.norm(quaternion))
    if not np.isfinite(position).all() or not abs(norm - 1) < 1e-3:
        raise ValueError(f"pose: expected a finite position and a unit quaternion, got {position} and {quaternion}")
    return Pose(position, quaternion / norm)


def pose_stamped(pose: Pose, time_ns: int, frame: str = BASE_FRAME) -> PoseStamped:
    message = PoseStamped(pose=pose_to_msg(pose))
    message.header.stamp, message.header.frame_id = ns_to_stamp(time_ns), frame
    return message


def twist_stamped(twist: np.ndarray, time_ns: int, frame: str = BASE_FRAME) -> TwistStamped:
    """twist (6,): linear [m/s] and angular [rad/s] velocity in `frame`."""
    message = TwistStamped()
    message.header.stamp, message.header.frame_id = ns_to_stamp(time_ns), frame
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = (float(v) for v in twist)
    return message


def twist_from_msg(message: Twist) -> np.ndarray:
    """(6,) linear [m/s] and angular [rad/s]; not checked for being finite."""
    v, w = message.linear, message.angular
    return np.array([v.x, v.y, v.z, w.x, w.y, w.z])


def image_to_msg(image: np.ndarray, time_ns: int, frame: str = CAMERA_FRAME) -> Image:
    """image (H, W, 3) uint8 RGB, stamped with its time of capture."""
    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding="rgb8", is_bigendian=0, step=width * 3)
    message.header.stamp, message.header.frame_id = ns_to_stamp(time_ns), frame
    # An array.array is taken over as it is; a list or bytes would be checked element by element.
    message.data = array.array("B", np.ascontiguousarray(image, np.uint8).tobytes())
    return message


def image_from_msg(message: Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB from rgb8 or bgr8, row padding removed. Raises `ValueError` for anything else."""
    return rgb_from_bytes(message.data, message.height, message.width, message.step, message.encoding)
