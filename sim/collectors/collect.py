"""Runs demonstrators and writes what they did as one DSRL file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core import __version__
from safe_policy_core.data.dsrl import DsrlDataset, write_dsrl
from safe_policy_core.interfaces import RobotEnv
from sim.collectors.controller import Controller
from sim.collectors.tasks import CollectionTask

SEED_BASE = 1_000_000
"""Demonstrations use seeds from here on; evaluations use small ones, so that no layout was demonstrated."""
SEED_STRIDE = 100_000
"""Largest number of trajectories of one seed."""


def trajectory(env: RobotEnv, controller: Controller, observation: np.ndarray) -> dict[str, np.ndarray]:
    """Runs an episode from its first observation (size,) to the end. The executed actions, by DSRL's keys."""
    rows: list[tuple[Any, ...]] = []
    ended = False
    while not ended:
        action = controller.action({"vector": observation})
        following, reward, cost, terminated, truncated, info = env.step(action)
        rows.append((observation, following["vector"], info["executed_action"], reward, cost, terminated, truncated))
        observation, ended = following["vector"], terminated or truncated
    keys = ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")
    return {key: np.array(column) for key, column in zip(keys, zip(*rows, strict=True), strict=True)}


def collect(task: CollectionTask, trajectories: int, seed: int, out: Path, command: str = "",
            progress: Iterable[int] | None = None) -> DsrlDataset:
    """Records `trajectories` episodes and writes `out`. The same arguments give the same file.

    Trajectory i depends on (seed, i) alone, so that a smaller dataset is the beginning of a larger one. progress:
    the indices to go through, wrapped in a display. The demonstrators' styles stand in the metadata.
    """
    env, make = task.make_env(), task.make_controller()
    runs, styles = [], []
    try:
        for index in range(trajectories) if progress is None else progress:
            episode_seed = SEED_BASE + seed * SEED_STRIDE + index
            observation, _ = env.reset(episode_seed)
            controller = make(env, np.random.default_rng([seed, index]))
            runs.append(trajectory(env, controller, observation["vector"]))
            styles.append(controller.style)
        specs = env.specs
    finally:
        env.close()
    columns = {key: np.concatenate([run[key] for run in runs]) for key in runs[0]}
    metadata = {"task": task.name, "env_id": task.env_id, "seed": seed, "command": command, "styles": styles,
                "software": {"safe_policy": __version__}}
    dataset = DsrlDataset.from_arrays(**columns, specs=specs, name=str(out), metadata=metadata)
    write_dsrl(out, dataset)
    return dataset


def summary(dataset: DsrlDataset) -> dict[str, Any]:
    """Counts and the ranges of return and cost."""
    return {"trajectories": len(dataset), "steps": dataset.rows,
            "return": [float(dataset.returns.min()), float(dataset.returns.max())],
            "cost": [float(dataset.cost_returns.min()), float(dataset.cost_returns.max())],
            "free_of_cost": int((dataset.cost_returns == 0).sum())}


def command_of(task: str, trajectories: int, seed: int, out: Path) -> str:
    """The command that records a dataset, for its metadata."""
    return f"safe-policy collect {task} --trajectories {trajectories} --seed {seed} --out {out}"
