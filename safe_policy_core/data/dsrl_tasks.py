"""The 38 tasks of DSRL as a table, and the normalised reward and cost by which methods are compared.

Normalised reward and cost follow DSRL (QPT eq. 15 and 16), as fractions: 1 is the best return in
the data, and exactly the cost threshold.
"""

from __future__ import annotations

import ast
import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from safe_policy_core.errors import ConfigurationError


@dataclass(frozen=True)
class DsrlTask:
    """One task.

    horizon: steps of an episode. min_return, max_return, max_cost: empirical extremes of the
    dataset's undiscounted sums, by which rewards are normalised. targets: the (return, cost) pairs
    that OSRL conditions CDT on. file: name of the dataset's file.
    """

    name: str
    env_id: str
    horizon: int
    min_return: float
    max_return: float
    max_cost: float
    episodes: int
    targets: tuple[tuple[float, float], ...]
    file: str

    def normalized_reward(self, episode_return: float) -> float:
        """QPT eq. 15 as a fraction."""
        return normalized_reward(episode_return, self.min_return, self.max_return)

    def scores(self, episode_return: float, episode_cost: float, threshold: float | None) -> dict[str, float]:
        """normalized_reward, and with a cost threshold also that and normalized_cost."""
        found = {"normalized_reward": self.normalized_reward(episode_return)}
        if threshold is not None:
            found |= {"cost_threshold": threshold, "normalized_cost": normalized_cost(episode_cost, threshold)}
        return found

    @property
    def simulator_id(self) -> str:
        """The environment in which its data were recorded. Raises `ConfigurationError` where it is not one of
        Safety-Gymnasium's: Bullet's and MetaDrive's are not among this project's simulators."""
        if "Gymnasium" not in self.env_id:
            raise ConfigurationError(f"task: {self.name} ({self.env_id}) is not a task of Safety-Gymnasium; this "
                                     "project has no simulator for it")
        return self.env_id.replace("Offline", "Safety", 1)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Usual cost thresholds: 20, 40, 80 for Safety-Gymnasium, 10, 20, 40 for Bullet and MetaDrive."""
        return (20.0, 40.0, 80.0) if "Gymnasium" in self.env_id else (10.0, 20.0, 40.0)


def normalized_reward(episode_return: float, min_return: float, max_return: float) -> float:
    """(R - min) / (max - min), QPT eq. 15 as a fraction. Raises `ValueError` for an empty range."""
    if not max_return > min_return:
        raise ValueError(f"max_return: expected more than min_return {min_return}, got {max_return}")
    return (episode_return - min_return) / (max_return - min_return)


def normalized_cost(episode_cost: float, threshold: float) -> float:
    """(C + eps) / (threshold + eps), QPT eq. 16; at most 1 is safe.

    eps is 1 for a threshold of 0 and 0 otherwise. Raises `ValueError` for a negative or infinite threshold.
    """
    if not (threshold >= 0 and np.isfinite(threshold)):
        raise ValueError(f"threshold: expected a number of at least 0, got {threshold}")
    epsilon = 1.0 if threshold == 0 else 0.0
    return (episode_cost + epsilon) / (threshold + epsilon)


@cache
def load_tasks() -> dict[str, DsrlTask]:
    """Task name -> task, from `dsrl_tasks.tsv` beside this module."""
    text = files(__package__).joinpath("dsrl_tasks.tsv").read_text()
    tasks = [DsrlTask(row["task"], row["env_id"], int(row["horizon"]), float(row["min_return"]),
                      float(row["max_return"]), float(row["max_cost"]), int(row["episodes"]),
                      tuple(ast.literal_eval(row["osrl_cdt_targets(return,cost)"])), row["file"])
             for row in csv.DictReader(text.splitlines(), delimiter="\t")]
    return {task.name: task for task in tasks}


def named_task(name: str) -> DsrlTask | None:
    """The task of this name (PointGoal1) or environment id (OfflinePointGoal1Gymnasium-v0), if the table has it."""
    return next((task for task in load_tasks().values() if name in (task.name, task.env_id)), None)
