"""SafeReach for methods that learn from one vector of state, with a reward that also counts time."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.interfaces import Observation, RobotEnv, Specs, StepResult
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.task import ACTION_SPEC, EPISODE_STEPS, SCALES, VECTOR_SPEC, Layout

STATE_SPECS = Specs({"vector": VECTOR_SPEC}, ACTION_SPEC, SCALES)


class StateReachEnv(RobotEnv):
    """SafeReach with the observation `vector` (25,) alone (see `SafeReachEnv.vector`).

    Reward: 1 on the step that touches the target, less 1 / 80 on every step. Without the second part every episode's
    return is 0 or 1, and nothing is gained by the short way past the obstacles.
    """

    def __init__(self, task: str = "original") -> None:
        self._env = SafeReachEnv(task, images=False)
        self.specs = STATE_SPECS

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        observation, info = self._env.reset(seed)
        return {"vector": observation["vector"]}, info

    def step(self, action: np.ndarray) -> StepResult:
        observation, reward, cost, terminated, truncated, info = self._env.step(action)
        return {"vector": observation["vector"]}, reward - 1 / EPISODE_STEPS, cost, terminated, truncated, info

    @property
    def pose(self) -> np.ndarray:
        """(6,) float32 measured tool pose."""
        return self._env.pose

    @property
    def layout(self) -> Layout:
        """What stands where in this episode."""
        return self._env.layout

    def close(self) -> None:
        self._env.close()
