"""Run by rosbags_check.sh in an environment of its own: writes a bag as `ros2 bag record` would, with another program.

    rosbags_check.py FOLDER    a realsense-ros camera (colour, depth, camera_info) and a pose, for two seconds
"""

import sys
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

START_NS = 1_700_000_000_000_000_000
CAMERA = "/camera/camera"
HEIGHT, WIDTH = 48, 64


def main(folder: Path) -> None:
    store = get_typestore(Stores.ROS2_KILTED)
    types = store.types
    pose, point, quaternion = (types[f"geometry_msgs/msg/{name}"] for name in ("Pose", "Point", "Quaternion"))

    def header(time_ns: int, frame: str) -> object:
        stamp = types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))
        return types["std_msgs/msg/Header"](stamp, frame)

    def image(time_ns: int, encoding: str, pixels: np.ndarray) -> object:
        return types["sensor_msgs/msg/Image"](header(time_ns, "camera_color_optical_frame"), HEIGHT, WIDTH, encoding, 0,
                                              pixels[0].nbytes, pixels.reshape(-1).view(np.uint8))

    messages = []
    for index in range(61):
        time_ns = START_NS + index * 10**9 // 30
        colour = np.full((HEIGHT, WIDTH, 3), (index, 0, 0), np.uint8)
        messages.append((time_ns, f"{CAMERA}/color/image_raw", image(time_ns, "rgb8", colour)))
        messages.append((time_ns, f"{CAMERA}/depth/image_rect_raw",
                         image(time_ns, "16UC1", np.full((HEIGHT, WIDTH), 500, np.uint16))))
    for index in range(201):
        time_ns = START_NS + index * 10_000_000
        place = pose(point(0.4 + 0.001 * index, 0.0, 0.1), quaternion(1.0, 0.0, 0.0, 0.0))
        messages.append((time_ns, "/franka/current_pose",
                         types["geometry_msgs/msg/PoseStamped"](header(time_ns, "fr3_link0"), place)))
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connections = {}
        for time_ns, topic, message in sorted(messages, key=lambda entry: entry[0]):
            kind = type(message).__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=store)
            bag.write(connections[topic], time_ns + 3_000_000, store.serialize_cdr(message, kind))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
