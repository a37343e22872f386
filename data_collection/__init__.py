"""Teleoperation devices, recording and conversion. Knows no rclpy; nodes are in ros2_ws."""

import os

# A picture in a stranger's file may claim any size. OpenCV asks for the largest it may take [pixels] when it is loaded.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 25))
