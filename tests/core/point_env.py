"""A point on a line: a `RobotEnv` small enough for tests to compute by hand, and episodes made with it."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.data.episodes import Episode
from safe_policy_core.evaluation import rollout
from safe_policy_core.interfaces import ActionDecision, Observation, Policy, RobotEnv, Spec, Specs, StepResult

STEP = 0.2
MAX_STEPS = 20
FAST = 0.6
"""The environment's own limit: larger actions are cut to it."""

SPECS = Specs({"vector": Spec("observation/vector", (2,), unit="m")}, Spec("action", (1,), low=-1.0, high=1.0),
              {"max_translation_step": STEP})


class PointEnv(RobotEnv):
    """Observation (position, goal). Reward 1 and the end within 0.1 of the goal; cost 1 beyond 0.9 from the origin."""

    specs = SPECS

    def __init__(self) -> None:
        self._running = False

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        rng = np.random.default_rng(seed)
        self._position, self._goal = rng.uniform(-0.8, -0.2), rng.uniform(0.2, 0.8)
        self._steps, self._violation, self._running = 0, False, True
        return self._observation(), {}

    def step(self, action: np.ndarray) -> StepResult:
        requested = self.specs.action.validate(action)
        if not self._running:
            raise RuntimeError("step: call reset first")
        executed = np.clip(requested, -FAST, FAST).astype(np.float32)
        self._position += STEP * float(executed[0])
        self._steps += 1
        success = abs(self._position - self._goal) < 0.1
        cost = float(abs(self._position) > 0.9)
        self._violation |= cost > 0
        truncated = not success and self._steps >= MAX_STEPS
        self._running = not (success or truncated)
        reason = "" if np.array_equal(requested, executed) else "speed"
        return (self._observation(), float(success), cost, bool(success), truncated,
                {"executed_action": executed, "filter_reason": reason, "success": bool(success),
                 "violation": self._violation})

    def _observation(self) -> Observation:
        return {"vector": np.array([self._position, self._goal], np.float32)}


class ScriptedPolicy(Policy):
    """Moves at a constant `speed` towards the goal (negative: away), and remembers what really ran."""

    def __init__(self, speed: float = 0.5, probability: float | None = None) -> None:
        self.specs, self.speed, self.probability = SPECS, speed, probability
        self.executed: list[float] = []
        self.acts = 0

    def reset(self, seed: int) -> None:
        self.executed, self.acts = [], 0

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        self.acts += 1
        return ActionDecision(np.array([self.speed], np.float32), violation_probability=self.probability,
                              chosen_policy="online" if self.acts % 2 else "offline")

    def observe_executed(self, action: np.ndarray) -> None:
        self.executed.append(float(action[0]))


class GoalPolicy(ScriptedPolicy):
    """An expert: the action is the distance to the goal, in steps."""

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        position, goal = observation["vector"]
        return ActionDecision(np.clip(np.array([(goal - position) / STEP], np.float32), -FAST, FAST))


def demonstrations(count: int, policy: Policy | None = None, first_seed: int = 0) -> list[Episode]:
    """Recorded episodes of the expert, or of another policy."""
    env, policy = PointEnv(), policy or GoalPolicy()
    episodes = []
    for seed in range(first_seed, first_seed + count):
        episode = rollout(env, policy, seed, record=True).episode
        assert episode is not None
        episodes.append(episode)
    return episodes


def image_episode(steps: int = 5, seed: int = 0, **metadata: Any) -> Episode:
    """Random numbers in the shape of a SafeReach episode, with 8x8 pictures; the last step terminates."""
    rng = np.random.default_rng(seed)
    specs = Specs({"image": Spec("observation/image", (8, 8, 3), "uint8", 0, 255),
                   "pose": Spec("observation/pose", (6,), unit="m, rad")},
                  Spec("action", (6,), low=-1.0, high=1.0), {"max_translation_step": 0.015})
    ends = np.arange(steps) == steps - 1
    return Episode(
        {"image": rng.integers(0, 256, (steps + 1, 8, 8, 3), dtype=np.uint8),
         "pose": rng.normal(size=(steps + 1, 6)).astype(np.float32)},
        *(rng.uniform(-1, 1, (steps, 6)).astype(np.float32) for _ in range(3)),
        intervention=rng.random(steps) < 0.5, filter_reason=["workspace" if step % 2 else "" for step in range(steps)],
        reward=ends.astype(np.float32), cost=rng.integers(0, 2, steps).astype(np.float32), terminated=ends,
        truncated=np.zeros(steps, bool), time_ns=1_700_000_000_000_000_000 + 100_000_000 * np.arange(steps + 1),
        metadata={"task": "original", "seed": seed, "specs": specs.to_json()} | metadata)
