"""Safety-Gymnasium's single-agent tasks as a `RobotEnv`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Observation, RobotEnv, Spec, Specs, StepResult
from sim.safety_gymnasium.assets import assets
from sim.safety_gymnasium.repaired_import import import_safety_gymnasium

IMAGE_SIZE = 64
VISION_KEY = "vision"
SWIMMER_IDS = ("SafetySwimmerVelocity-v1",)
SWIMMER_CLASS = "sim.safety_gymnasium.swimmer:SwimmerVelocityEnv"
"""Stands in for a task whose model MuJoCo 3 refuses."""


class SafetyGymnasiumEnv(RobotEnv):
    """One task by its id. The ids of DSRL's files (`SafetyPointGoal1Gymnasium-v0`) name the same tasks.

    Observations: "vector" (float32, the task's flattened sensors), or for a vision id such as
    `SafetyPointGoal1Vision-v0` "image" (64, 64, 3) uint8 from the agent's own camera. Actions
    are in [-1, 1] and mapped onto the task's own bounds. The layout is drawn anew at every reset
    from the reset's seed alone.

    `info["success"]` is true once the task's goal was met in this episode (`goal_met`, where the
    task has one); `info["violation"]` once any cost came.

    repeat: steps of the task for which an action is held. Their rewards and costs are summed, and the observation is
    that after the last.
    """

    def __init__(self, env_id: str, repeat: int = 1) -> None:
        if repeat < 1:
            raise ConfigurationError(f"repeat: expected at least 1, got {repeat}")
        package = import_safety_gymnasium()
        self.repeat = repeat
        self.env_id = env_id = env_id.replace("Gymnasium-", "-")
        vision = "Vision-" in env_id
        if env_id not in gymnasium.registry:
            raise ConfigurationError(f"task: Safety-Gymnasium has no {env_id!r}; an example is SafetyPointGoal1-v0")
        options = {}
        if vision:
            # `make` replaces the registered configuration by the one given, so its entries are kept.
            registered = gymnasium.spec(env_id).kwargs["config"]
            options["config"] = registered | {"vision_env_conf.vision_size": (IMAGE_SIZE, IMAGE_SIZE)}
        if env_id in SWIMMER_IDS:
            gymnasium.registry[env_id].entry_point = SWIMMER_CLASS
        self._env = package.make(env_id, **options)
        self._vision = vision
        box = self._env.action_space
        self._low, self._high = box.low.astype(np.float32), box.high.astype(np.float32)
        if vision:
            observation = {"image": Spec("observation/image", (IMAGE_SIZE, IMAGE_SIZE, 3), "uint8", 0, 255)}
        else:
            observation = {"vector": Spec("observation/vector", self._env.observation_space.shape)}
        self.specs = Specs(observation, Spec("action", box.shape, low=-1.0, high=1.0))
        self._running = False

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        with assets(starry=self._vision):
            raw, info = self._env.reset(seed=seed)
        self._running, self._success, self._violation = True, False, False
        return self._observation(raw), dict(info) | {"success": False, "violation": False}

    def step(self, action: np.ndarray) -> StepResult:
        executed = self.specs.action.validate(action)
        if not self._running:
            raise RuntimeError("step: call reset first; the episode has ended or never began")
        native = self._low + (executed + 1) / 2 * (self._high - self._low)
        reward = cost = 0.0
        for left in reversed(range(self.repeat)):
            # The checks of the wrappers and an observation that nobody sees would take most of the time.
            advance = self._env.step if left == 0 else self._unobserved_step
            raw, gained, paid, terminated, truncated, info = advance(native)
            reward, cost = reward + float(gained), cost + float(paid)
            self._success |= bool(info.get("goal_met", False))
            self._running = not (terminated or truncated)
            if not self._running:
                break
        self._violation |= cost > 0
        raw = self.simulation.task.obs() if raw is None else raw
        return (self._observation(raw), reward, cost, bool(terminated), bool(truncated),
                dict(info) | {"executed_action": executed, "filter_reason": "", "success": self._success,
                              "violation": self._violation})

    def _unobserved_step(self, native: np.ndarray) -> StepResult:
        """A step below the wrappers, whose observation is None where the task can go without."""
        if (task := getattr(self.simulation, "task", None)) is None:
            return self.simulation.step(native)
        task.obs = lambda: None
        try:
            return self.simulation.step(native)
        finally:
            del task.obs

    @property
    def simulation(self) -> Any:
        """Safety-Gymnasium's own environment below every wrapper, for what a scripted demonstrator may know."""
        return self._env.unwrapped

    def close(self) -> None:
        self._running = False
        self._env.close()

    def _observation(self, raw: Any) -> Observation:
        if not self._vision:
            return {"vector": np.asarray(raw, np.float32)}
        image = raw[VISION_KEY] if isinstance(raw, dict) else raw
        return {"image": np.ascontiguousarray(image[..., :3], dtype=np.uint8)}
