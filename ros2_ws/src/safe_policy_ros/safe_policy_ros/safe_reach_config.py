"""SafeReach's constants as a configuration of the ROS environment; the task's module is their one source."""

from __future__ import annotations

from typing import Any

from safe_policy_ros.ros_robot_env import RosEnvConfig
from sim.safe_reach import task

AGES = ("image_timeout", "pose_timeout", "status_timeout", "companion_timeout")


def safe_reach_config(patience: float = 1.0, **changes: Any) -> RosEnvConfig:
    """The SafeReach task on whatever arm the graph has; `changes` are fields of `RosEnvConfig`.

    patience: factor on the ages of what was seen and heard at which an episode ends.
    """
    values: dict[str, Any] = {
        "specs": task.SPECS, "start_pose": task.start_pose, "nominal_quaternion": task.NOMINAL_QUATERNION,
        "max_steps": task.EPISODE_STEPS,
        **{name: patience * getattr(RosEnvConfig, name) for name in AGES}}
    return RosEnvConfig(**values | changes)
