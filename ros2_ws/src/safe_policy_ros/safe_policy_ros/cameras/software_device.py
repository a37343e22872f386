"""Writes .db3 files as a D435 leaves them, through librealsense's recorder; for benchmarks and tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rclpy  # noqa: F401 - before pyrealsense2: in the other order the process dies when it ends

import pyrealsense2 as rs  # isort: skip

WIDTH, HEIGHT, FPS = 640, 480, 30
FOCAL = (600.0, 601.0)
DISTORTION = [0.1, 0.01, 0.0, 0.0, 0.0]


def record(path: Path, pictures: Sequence[np.ndarray]) -> None:
    """pictures: (480, 640, 3) uint8 RGB, 30 in a second by the device's own clock."""
    device = rs.software_device()
    sensor = device.add_sensor("RGB Camera")
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = rs.stream.color, 0, 1, rs.format.rgb8, 3
    stream.width, stream.height, stream.fps = WIDTH, HEIGHT, FPS
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height, intrinsics.ppx, intrinsics.ppy = WIDTH, HEIGHT, WIDTH / 2, HEIGHT / 2
    intrinsics.fx, intrinsics.fy = FOCAL
    intrinsics.model, intrinsics.coeffs = rs.distortion.brown_conrady, DISTORTION
    stream.intrinsics = intrinsics
    profile = sensor.add_video_stream(stream).as_video_stream_profile()
    # Uncompressed, as the load of a live camera is to be measured with it: unpacking takes half a core.
    recorder = rs.recorder(str(path), device, False)
    recorded = recorder.query_sensors()[0]
    queue = rs.frame_queue(len(pictures))
    recorded.open(profile)
    recorded.start(queue)
    for number, pixels in enumerate(pictures):
        frame = rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp, frame.profile = pixels, WIDTH * 3, 3, profile
        frame.timestamp, frame.frame_number = number * 1000 / FPS, number + 1
        frame.domain = rs.timestamp_domain.hardware_clock
        sensor.on_video_frame(frame)
        time.sleep(0.01)
    recorded.stop()
    recorded.close()
    del recorder, recorded
