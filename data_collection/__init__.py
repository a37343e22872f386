"""Teleoperation devices, recording and conversion. Knows no rclpy; nodes are in ros2_ws."""
