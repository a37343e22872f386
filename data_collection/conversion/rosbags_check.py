"""Run by rosbags_check.sh in an environment of its own: writes a bag as `ros2 bag record` would, with another program.

    rosbags_check.py FOLDER mcap|sqlite3 raw|compressed    a realsense-ros camera and a pose, for two seconds
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS = 1_700_000_000_000_000_000
CAMERA = "/camera/camera"
HEIGHT, WIDTH = 48, 64


def main(folder: Path, storage: str, transport: str) -> None:
    # Humble, whose `ros2 bag record` writes SQLite unless told otherwise, and today's release.
    store = get_typestore(Stores.ROS2_HUMBLE if storage == "sqlite3" else Stores.ROS2_KILTED)
    types = store.types
    pose, point, quaternion = (types[f"geometry_msgs/msg/{name}"] for name in ("Pose", "Point", "Quaternion"))

    def header(time_ns: int, frame: str) -> object:
        stamp = types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))
        return types["std_msgs/msg/Header"](stamp, frame)

    def image(time_ns: int, encoding: str, pixels: np.ndarray) -> object:
        return types["sensor_msgs/msg/Image"](header(time_ns, "camera_color_optical_frame"), HEIGHT, WIDTH, encoding, 0,
                                              pixels[0].nbytes, pixels.reshape(-1).view(np.uint8))

    def compressed(time_ns: int, pixels: np.ndarray) -> object:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "png")
        return types["sensor_msgs/msg/CompressedImage"](header(time_ns, "camera_color_optical_frame"), "rgb8; png",
                                                        np.frombuffer(data.getvalue(), np.uint8))

    def info(time_ns: int) -> object:
        return types["sensor_msgs/msg/CameraInfo"](
            header(time_ns, "camera_color_optical_frame"), HEIGHT, WIDTH, "plumb_bob", np.zeros(5), np.eye(3).ravel(),
            np.eye(3).ravel(), np.zeros(12), 0, 0, types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False))

    messages = []
    for index in range(61):
        time_ns = START_NS + index * 10**9 // 30
        colour = np.full((HEIGHT, WIDTH, 3), (index, 0, 0), np.uint8)
        messages.append((time_ns, f"{CAMERA}/color/image_raw", image(time_ns, "rgb8", colour)) if transport == "raw"
                        else (time_ns, f"{CAMERA}/color/image_raw/compressed", compressed(time_ns, colour)))
        messages.append((time_ns, f"{CAMERA}/color/camera_info", info(time_ns)))
        for topic in ("depth/image_rect_raw", "aligned_depth_to_color/image_raw"):
            messages.append((time_ns, f"{CAMERA}/{topic}",
                             image(time_ns, "16UC1", np.full((HEIGHT, WIDTH), 500, np.uint16))))
    for index in range(201):
        time_ns = START_NS + index * 10_000_000
        place = pose(point(0.4 + 0.001 * index, 0.0, 0.1), quaternion(1.0, 0.0, 0.0, 0.0))
        messages.append((time_ns, "/franka/current_pose",
                         types["geometry_msgs/msg/PoseStamped"](header(time_ns, "fr3_link0"), place)))
    plugin = StoragePlugin.SQLITE3 if storage == "sqlite3" else StoragePlugin.MCAP
    with Writer(folder, version=8 if storage == "sqlite3" else 9, storage_plugin=plugin) as bag:
        connections = {}
        for time_ns, topic, message in sorted(messages, key=lambda entry: entry[0]):
            kind = type(message).__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=store)
            bag.write(connections[topic], time_ns + 3_000_000, store.serialize_cdr(message, kind))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
