"""Starts the stack: launch and parameter files, the ROS environment, and a runner for launch files."""
