"""A corridor in DSRL's format: safe and unsafe behaviour mixed, small enough to learn in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.interfaces import Observation, RobotEnv, Spec, Specs, StepResult

STEPS = 20
LIMIT = 0.5
"""Beyond it each step costs 1; the reward is the position, so that the unsafe earn more."""
SAFE_GOAL, UNSAFE_GOAL = 0.4, 0.9
SPECS = Specs({"vector": Spec("observation/vector", (2,))}, Spec("action", (1,), low=-1.0, high=1.0))


class Corridor(RobotEnv):
    """Observation (position, share of the episode that is over); an action of 1 moves by 0.1."""

    specs = SPECS

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        self._position, self._steps = float(np.random.default_rng(seed).uniform(-0.2, 0.2)), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> StepResult:
        executed = SPECS.action.validate(action)
        self._position += 0.1 * float(executed[0])
        self._steps += 1
        return (self._observation(), self._position, float(self._position > LIMIT), False, self._steps == STEPS,
                {"executed_action": executed, "filter_reason": ""})

    def _observation(self) -> Observation:
        return {"vector": np.array([self._position, self._steps / STEPS], np.float32)}


def corridor_dataset(episodes: int = 120, unsafe: float = 0.7, seed: int = 0) -> DsrlDataset:
    """Walks to a goal on the safe or the unsafe side and stays there, with noise in the goal and the actions."""
    rng, env = np.random.default_rng(seed), Corridor()
    rows: dict[str, list[Any]] = {key: [] for key in ("observations", "next_observations", "actions", "rewards",
                                                      "costs", "terminals", "timeouts")}
    for episode in range(episodes):
        observation, _ = env.reset(seed * 1000 + episode)
        goal = (UNSAFE_GOAL if rng.random() < unsafe else SAFE_GOAL) + rng.normal(scale=0.03)
        done = False
        while not done:
            wanted = (goal - observation["vector"][0]) / 0.1 + rng.normal(scale=0.2)
            action = np.clip([wanted], -1, 1).astype(np.float32)
            following, reward, cost, terminated, done, _ = env.step(action)
            for key, value in zip(rows, (observation["vector"], following["vector"], action, reward, cost, terminated,
                                         done), strict=True):
                rows[key].append(value)
            observation = following
    return DsrlDataset.from_arrays(**{key: np.array(values) for key, values in rows.items()}, specs=SPECS,
                                   name="corridor")
