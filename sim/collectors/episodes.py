"""Runs the behaviours of FOSP's simulation tasks and writes episode files, which `pretrain` reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.data.episodes import write_episode
from safe_policy_core.environments import make_env
from safe_policy_core.evaluation import rollout
from safe_policy_core.interfaces import ActionDecision, Observation, Policy
from sim.collectors.behaviours import controller_of
from sim.collectors.collect import SEED_BASE, SEED_STRIDE
from sim.collectors.controller import NAVIGATION_BEHAVIOURS
from sim.safety_gymnasium import SafetyGymnasiumEnv


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to record. task: PointGoal1-vision. index: with `seed` it fixes the layout and the style."""

    path: Path
    task: str
    behaviour: str
    seed: int
    index: int


class Demonstrator(Policy):
    """A behaviour as a policy. It sees the simulation, not the observation; each episode has a style of its own."""

    def __init__(self, env: SafetyGymnasiumEnv, task: str, behaviour: str) -> None:
        self.specs, self._env, self._make = env.specs, env, controller_of(task, behaviour)

    def reset(self, seed: int) -> None:
        self._controller = self._make(self._env, np.random.default_rng(seed))

    @property
    def style(self) -> dict[str, float]:
        """Of the episode that runs."""
        return self._controller.style

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        return ActionDecision(self._controller.action(observation))


def jobs(task: str, episodes: int, behaviour: str, seed: int, folder: Path) -> list[EpisodeJob]:
    """`episodes` of one behaviour, or with "mixed" of all three in turns, as nearly 1 : 1 : 1 as can be."""
    chosen = NAVIGATION_BEHAVIOURS if behaviour == "mixed" else (behaviour,)
    names = [chosen[index % len(chosen)] for index in range(episodes)]
    return [EpisodeJob(folder / f"{task}-{seed}-{index:04d}-{name}.h5", task, name, seed, index)
            for index, name in enumerate(names)]


def record(work: list[EpisodeJob]) -> Iterator[dict[str, Any]]:
    """Records episodes of one task, one after the other, and yields what each brought."""
    if not work:
        return
    env = make_env(work[0].task)
    assert isinstance(env, SafetyGymnasiumEnv)
    try:
        for job in work:
            policy = Demonstrator(env, job.task.partition("-")[0], job.behaviour)
            seed = SEED_BASE + job.seed * SEED_STRIDE + job.index
            metadata = {"task": job.task, "operator": "scripted", "source": "direct", "behavior": job.behaviour,
                        "action_repeat": env.repeat, "style": {}}
            result = rollout(env, policy, seed, record=True, metadata=metadata)
            assert result.episode is not None  # asked for by record=True
            result.episode.metadata |= {"style": policy.style, "violation": result.violation}
            write_episode(job.path, result.episode)
            yield {"path": str(job.path), "behavior": job.behaviour, "steps": result.steps, "return": result.reward,
                   "cost": result.cost}
    finally:
        env.close()
