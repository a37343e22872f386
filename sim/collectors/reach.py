"""Demonstrators of SafeReach who plan with privileged state and keep more or less clear of the obstacles."""

from __future__ import annotations

import numpy as np

from safe_policy_core.interfaces import Observation
from sim.collectors.controller import ActionNoise
from sim.safe_reach.expert import SOFT_CLEARANCE, WaypointFollower, plan_path
from sim.safe_reach.state import StateReachEnv

STRAIGHT = 0.0
"""Below this clearance [m] the way is the straight line, whatever stands in it."""
REPLAN_DISTANCE = 0.02
"""Plans again when this far off the path [m]."""


class Reacher:
    """Goes to the target along a planned path.

    Style: `clearance` kept from the obstacles' surfaces [m] (below 0: straight through them), `speed` (share of the
    largest step), `noise`.
    """

    def __init__(self, env: StateReachEnv, rng: np.random.Generator) -> None:
        self._env = env
        straight = rng.random() < 0.5
        # Who goes straight is in a hurry: so more reward comes with more cost, as in the other tasks.
        self.style = {"clearance": -1.0 if straight else float(rng.uniform(0.004, SOFT_CLEARANCE - 0.004)),
                      "speed": float(rng.uniform(0.6, 1.0) if straight else rng.uniform(0.3, 0.9)),
                      "noise": float(rng.choice([0.05, 0.15, 0.3]))}
        self._noise = ActionNoise(6, self.style["noise"], rng, memory=0.8)
        self._follower: WaypointFollower | None = None

    def action(self, observation: Observation) -> np.ndarray:
        pose = self._env.pose
        if self._follower is None or self._follower.deviation(pose) > REPLAN_DISTANCE:
            self._follower = WaypointFollower(self._path(pose[:2].astype(float)), self.style["speed"])
        return self._noise.disturb(self._follower.action(pose))

    def _path(self, start: np.ndarray) -> np.ndarray:
        layout = self._env.layout
        path = None
        if self.style["clearance"] >= STRAIGHT:
            path = plan_path(layout, start, hard_clearance=self.style["clearance"])
        return np.linspace(start, [layout.target.x, layout.target.y], 20) if path is None else path
