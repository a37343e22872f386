"""Environments by name. The core names their modules and imports them only when asked for."""

from __future__ import annotations

import importlib
from typing import Any

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv

SAFE_REACH_TASKS = ("original", "obstacle_shape", "target_shape", "more_obstacles", "random_layout")
STATE_SUFFIX = "-state"


def make_env(name: str, **options: Any) -> RobotEnv:
    """An environment: a SafeReach task by name (with "-state" behind it: one vector of state as the observation, for
    methods that learn from DSRL files), or a Safety-Gymnasium id such as SafetyPointGoal1-v0.

    Raises `ConfigurationError` for an unknown name and lists the known ones.
    """
    if name in SAFE_REACH_TASKS:
        return importlib.import_module("sim.safe_reach.environment").SafeReachEnv(task=name, **options)
    if name.endswith(STATE_SUFFIX) and name.removesuffix(STATE_SUFFIX) in SAFE_REACH_TASKS:
        task = name.removesuffix(STATE_SUFFIX)
        return importlib.import_module("sim.safe_reach.state").StateReachEnv(task=task, **options)
    if name.startswith("Safety"):
        return importlib.import_module("sim.safety_gymnasium").SafetyGymnasiumEnv(name, **options)
    raise ConfigurationError(f"task: unknown {name!r}; expected one of {', '.join(SAFE_REACH_TASKS)}, "
                             "or a Safety-Gymnasium id such as SafetyPointGoal1-v0")
