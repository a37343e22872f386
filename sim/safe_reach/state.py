"""SafeReach for methods that learn from one vector of state, with a reward that also counts time."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Observation, RobotEnv, Specs, StepResult
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.task import (
    ACTION_SPEC,
    EPISODE_STEPS,
    MAX_OBSTACLES,
    NOMINAL_QUATERNION,
    OBSTACLE_HALF_SIZE,
    SCALES,
    TARGET_HALF_HEIGHT,
    VECTOR_SPEC,
    Layout,
    start_pose,
)

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
        return {"vector": observation["vector"]}, timed_reward(reward), cost, terminated, truncated, info

    @property
    def pose(self) -> np.ndarray:
        """(6,) float32 measured tool pose."""
        return self._env.pose

    @property
    def layout(self) -> Layout:
        """What stands where in this episode."""
        return self._env.layout

    def render(self, height: int = 480, width: int = 640) -> np.ndarray:
        """(height, width, 3) uint8 RGB picture, as `SafeReachEnv.render`."""
        return self._env.render(height, width)

    def close(self) -> None:
        self._env.close()


class StateView:
    """What `StateReachEnv` shows, where only the arm's pose is measured: things stand where the layout put them.

    An obstacle that was pushed stays where it was for whoever looks through this. layout: must have a target; raises
    `ConfigurationError` without one.
    """

    def __init__(self, layout: Layout) -> None:
        if layout.target is None:
            raise ConfigurationError("layout: expected a target, and obstacles, as a scene that knows them tells; a "
                                     "method that learned from states cannot see a table that a person arranged")
        places = np.zeros((MAX_OBSTACLES, 4), np.float32)
        for place, item in zip(places, layout.obstacles, strict=False):
            place[:] = item.x, item.y, OBSTACLE_HALF_SIZE[2], 1
        self._places = np.concatenate([places.ravel(), [layout.target.x, layout.target.y, TARGET_HALF_HEIGHT]])

    def observation(self, pose: np.ndarray) -> Observation:
        """`vector` (25,) float32 from the tool's measured pose (6,)."""
        return {"vector": np.concatenate([pose, self._places]).astype(np.float32)}

    def first(self, seed: int) -> Observation:
        """What the episode of `seed` begins with when the arm is where it is to start."""
        return self.observation(start_pose(seed).to_vector(np.asarray(NOMINAL_QUATERNION)))


def timed_reward(reward: float) -> float:
    """A step's reward in `StateReachEnv`, from SafeReach's."""
    return reward - 1 / EPISODE_STEPS
