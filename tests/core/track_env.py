"""A constrained problem that a small network solves in seconds, and mixed data of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.interfaces import Observation, RobotEnv, Spec, Specs, StepResult

STEPS = 24
SPEED_LIMIT = 0.2
COST_LIMIT = 2.0
SPECS = Specs({"vector": Spec("observation/vector", (2,))}, Spec("action", (1,), low=-1.0, high=1.0))


class TrackEnv(RobotEnv):
    """Round a track: observation (cos, sin) of the angle, which goes on by 2 pi / 12 a step whatever is done.

    Reward is the action (the speed). Where cos > 0, a cost of 1 for every step faster than `SPEED_LIMIT`.
    """

    specs = SPECS

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        self._angle, self._steps = np.random.default_rng(seed).uniform(0, 2 * np.pi), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> StepResult:
        executed = self.specs.action.validate(action)
        speed, cost = float(executed[0]), float(np.cos(self._angle) > 0 and executed[0] > SPEED_LIMIT)
        self._angle, self._steps = self._angle + 2 * np.pi / 12, self._steps + 1
        return (self._observation(), speed, cost, False, self._steps >= STEPS,
                {"executed_action": executed, "filter_reason": ""})

    def _observation(self) -> Observation:
        return {"vector": np.array([np.cos(self._angle), np.sin(self._angle)], np.float32)}


def mixed_data(episodes: int = 60, seed: int = 0) -> DsrlDataset:
    """Two of three episodes are driven by somebody who ignores the limit, the others keep to it; all with noise."""
    rng, env = np.random.default_rng(seed), TrackEnv()
    rows: dict[str, list[Any]] = {key: [] for key in ("observations", "next_observations", "actions", "rewards",
                                                     "costs", "terminals", "timeouts")}
    for episode in range(episodes):
        observation, _ = env.reset(seed * 10_000 + episode)
        over = False
        while not over:
            careful = episode % 3 == 0 and observation["vector"][0] > 0
            action = np.clip(rng.normal(-0.1 if careful else 0.7, 0.12, 1), -1, 1).astype(np.float32)
            following, reward, cost, terminated, over, _ = env.step(action)
            for key, value in zip(rows, (observation["vector"], following["vector"], action, reward, cost, terminated,
                                         over), strict=True):
                rows[key].append(value)
            observation = following
    return DsrlDataset.from_arrays(**{key: np.array(values) for key, values in rows.items()}, specs=SPECS)
