"""The benchmark's datasets: which demonstrators make them, and in which environment."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv
from sim.collectors.controller import Controller


@dataclass(frozen=True)
class CollectionTask:
    """name: of the dataset. env_id: for `make_env`. controller: "module:Class" of `sim.collectors`. horizon: steps of
    an episode at most. target_cost: the cost limit by which methods are compared (QPT's tables: 10). trajectories: that
    the dataset has by default. for_falls: nobody pays there, it tells who stays on its feet (SAS's Table 3)."""

    name: str
    env_id: str
    controller: str
    horizon: int
    target_cost: float = 10.0
    trajectories: int = 600
    for_falls: bool = False

    def make_controller(self) -> Callable[[RobotEnv, np.random.Generator], Controller]:
        """The controller's class. Imported here, as each brings its own simulator."""
        module, _, name = self.controller.partition(":")
        return getattr(importlib.import_module(f"sim.collectors.{module}"), name)

    def make_env(self) -> RobotEnv:
        return make_env(self.env_id)


TASKS = {task.name: task for task in (
    CollectionTask("PointGoal1", "SafetyPointGoal1Gymnasium-v0", "field:Seeking", 1000),
    CollectionTask("PointCircle1", "SafetyPointCircle1Gymnasium-v0", "gait:Gait", 500),
    CollectionTask("CarCircle1", "SafetyCarCircle1Gymnasium-v0", "field:Orbiting", 500),
    CollectionTask("CarCircle2", "SafetyCarCircle2Gymnasium-v0", "field:Orbiting", 500),
    CollectionTask("HalfCheetahVelocity", "SafetyHalfCheetahVelocityGymnasium-v1", "gait:Gait", 1000),
    CollectionTask("HopperVelocity", "SafetyHopperVelocityGymnasium-v1", "gait:Gait", 1000),
    CollectionTask("SwimmerVelocity", "SafetySwimmerVelocityGymnasium-v1", "gait:Gait", 1000),
    CollectionTask("Walker2dVelocity", "SafetyWalker2dVelocityGymnasium-v1", "gait:Gait", 1000),
    # 376 numbers a step: twice as many trajectories would be a gigabyte.
    CollectionTask("HumanoidVelocity", "SafetyHumanoidVelocityGymnasium-v1", "gait:Gait", 1000, trajectories=300,
                   for_falls=True),
    # An episode lasts 20 steps, not 1000: one touch is the limit here, and there are more of them.
    CollectionTask("SafeReach", "original-state", "reach:Reacher", 80, target_cost=1.0, trajectories=1200),
)}
"""Name -> task."""
BENCHMARK = tuple(name for name, task in TASKS.items() if not task.for_falls)
"""What methods of safe learning are compared on."""


def find_task(name: str) -> CollectionTask:
    """The task of a dataset's name or an environment's id. Raises `ConfigurationError` listing the known ones."""
    for task in TASKS.values():
        if name in (task.name, task.env_id, task.env_id.replace("Gymnasium-", "-")):
            return task
    known = ", ".join(f"{task.name} ({task.env_id})" for task in TASKS.values())
    raise ConfigurationError(f"task: no demonstrators for {name!r}, expected one of {known}")
