"""Environments by name. The core names their modules and imports them only when asked for."""

from __future__ import annotations

import importlib
from typing import Any

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv

SAFE_REACH_TASKS = ("original", "obstacle_shape", "target_shape", "more_obstacles", "random_layout")
STATE_SUFFIX = "-state"
VISION_SUFFIX = "-vision"
SAFETY_GYMNASIUM_TASKS = {
    "PointGoal1": "SafetyPointGoal1-v0", "PointButton1": "SafetyPointButton1-v0", "PointPush1": "SafetyPointPush1-v0",
    "PointGoal2": "SafetyPointGoal2-v0", "CarGoal2": "SafetyCarGoal2-v0", "FadingEasy1": "SafetyPointFadingEasy1-v0",
    "Race2": "SafetyPointRace2-v0"}
"""FOSP's simulation tasks (Appendix D.2, H.3, H.6). The paper does not say which agent fades and races."""
ACTION_REPEAT = 4
"""FOSP's Table 4."""


def make_env(name: str, **options: Any) -> RobotEnv:
    """An environment: a SafeReach task by name (with "-state" behind it: one vector of state as the observation, for
    methods that learn from DSRL files), or a Safety-Gymnasium id such as SafetyPointGoal1-v0, or one of FOSP's
    simulation tasks with an action repeat of 4, as PointGoal1-vision (two pictures) or PointGoal1-state (its sensors).

    Raises `ConfigurationError` for an unknown name and lists the known ones.
    """
    if name in SAFE_REACH_TASKS:
        return importlib.import_module("sim.safe_reach.environment").SafeReachEnv(task=name, **options)
    if name.endswith(STATE_SUFFIX) and name.removesuffix(STATE_SUFFIX) in SAFE_REACH_TASKS:
        task = name.removesuffix(STATE_SUFFIX)
        return importlib.import_module("sim.safe_reach.state").StateReachEnv(task=task, **options)
    task, dash, seen = name.partition("-")
    if task in SAFETY_GYMNASIUM_TASKS and dash + seen in (STATE_SUFFIX, VISION_SUFFIX):
        package = importlib.import_module("sim.safety_gymnasium")
        kind = package.FrontBackEnv if dash + seen == VISION_SUFFIX else package.SafetyGymnasiumEnv
        return kind(SAFETY_GYMNASIUM_TASKS[task], **{"repeat": ACTION_REPEAT} | options)
    if name.startswith("Safety"):
        return importlib.import_module("sim.safety_gymnasium").SafetyGymnasiumEnv(name, **options)
    raise ConfigurationError(f"task: unknown {name!r}; expected one of {', '.join(SAFE_REACH_TASKS)}, "
                             f"one of {', '.join(SAFETY_GYMNASIUM_TASKS)} with {VISION_SUFFIX} or {STATE_SUFFIX} "
                             "behind it, or a Safety-Gymnasium id such as SafetyPointGoal1-v0")
