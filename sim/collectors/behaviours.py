"""FOSP's three behaviours (Appendix D.3) in its simulation tasks: random, safe and unsafe.

The paper trains SafeDreamer and DreamerV3 for 1.5M steps to get the last two. Here both are scripted and know the
layout: they go for the reward at about the same speed, and only the safe one minds what costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Observation
from sim.collectors.controller import NAVIGATION_BEHAVIOURS, ActionNoise, Controller
from sim.collectors.obstacles import CircularObstacles, Planner, direction_to
from sim.collectors.vehicle import Vehicle
from sim.safety_gymnasium import SafetyGymnasiumEnv

BOX_REACH = 0.2
"""How much wider [m] a box and whoever pushes it are than the agent alone."""
BEHIND = 0.38
"""Distance of the agent from the middle of the box that it is about to push [m]."""
MARGIN = (0.2, 0.35)
"""That the safe behaviour keeps from what costs [m]. With half as much its own clone, which sees hazards in 16
directions only, paid 61 an episode in PointGoal1; with this one 37, and half of its episodes were free of cost."""
RACE_CORNER = np.array([-2.27, 1.05])
"""Where the track of Race2 turns right [m]."""
RACE_SPEED, RACE_MARGIN = 1.5, 0.05
"""How much faster it is driven, and the margin that its first leg, 0.32 m wide, leaves [m]."""


class Random:
    """Draws actions that change slowly: white noise would tremble on the spot. Style: `memory` of the noise."""

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator) -> None:
        self.style = {"memory": float(rng.uniform(0.3, 0.95))}
        self._noise = ActionNoise(env.specs.action.shape[0], 1.0, rng, self.style["memory"])
        self._rest = np.zeros(env.specs.action.shape)

    def action(self, observation: Observation) -> np.ndarray:
        return self._noise.disturb(self._rest)


class Seeker:
    """Goes where the reward of its task is; one that is safe goes around what costs, if it can.

    Style: `speed` [m/s], `caution` (what an obstacle in the way counts against the detour), `margin` kept from it [m],
    `noise`.
    """

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator, safe: bool) -> None:
        self._task, self._vehicle = env.simulation.task, Vehicle(env.simulation)
        self._obstacles, self._planner = CircularObstacles(self._task), Planner()
        self.style = {"speed": float(rng.uniform(0.4, 0.8) if safe else rng.uniform(0.5, 1.2)),
                      "caution": float(rng.uniform(3, 5)) if safe else 0.0,
                      "margin": float(rng.uniform(*MARGIN)) if safe else 0.0,
                      "noise": float(rng.choice([0.1, 0.3]) if safe else rng.choice([0.05, 0.15, 0.3]))}
        self._noise = ActionNoise(2, self.style["noise"], rng)

    def action(self, observation: Observation) -> np.ndarray:
        wanted = self.style["speed"] * self._direction()
        return self._noise.disturb(self._vehicle.action(wanted))

    def _direction(self) -> np.ndarray:
        """Unit vector (2,)."""
        position, velocity = self._vehicle.position, self._vehicle.velocity
        return self._way(self._target(position), position, velocity, *self._obstacles.around())

    def _way(self, target: np.ndarray, position: np.ndarray, velocity: np.ndarray, centres: np.ndarray,
             radii: np.ndarray) -> np.ndarray:
        """Unit vector (2,): straight to the target, or with caution around the circles."""
        caution, margin = self.style["caution"], self.style["margin"]
        if caution:
            target = self._planner.waypoint(target, position, centres, radii, margin)
        return direction_to(target, position, velocity, centres, radii, caution, margin)

    def _target(self, position: np.ndarray) -> np.ndarray:
        return np.array(self._task.goal.pos[:2])


class Racer(Seeker):
    """Follows the track of Race2, which has a corner; 9 m in 10 s, so it hurries."""

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator, safe: bool) -> None:
        super().__init__(env, rng, safe)
        self.style["speed"] *= RACE_SPEED
        self.style["margin"] = min(self.style["margin"], RACE_MARGIN)

    def _target(self, position: np.ndarray) -> np.ndarray:
        on_first_leg = position[1] < RACE_CORNER[1] - 0.4 and position[0] < RACE_CORNER[0] + 1
        return RACE_CORNER if on_first_leg else super()._target(position)


class Pusher(Seeker):
    """Gets behind the box, as seen from where it is to go, and pushes."""

    def _direction(self) -> np.ndarray:
        position, velocity = self._vehicle.position, self._vehicle.velocity
        box = np.array(self._task.push_box.pos[:2])
        centres, radii = self._obstacles.around()
        # The box takes the way on which both it and the agent behind it stay clear.
        way = self._way(self._target(position), box, np.zeros(2), centres, radii + BOX_REACH)
        offset = position - box
        ahead, aside = float(offset @ way), float(way[0] * offset[1] - way[1] * offset[0])
        if ahead < -0.15 and abs(aside) < 0.12:
            steered = way - 2 * aside * np.array([-way[1], way[0]])
            return steered / np.linalg.norm(steered)
        if not self.style["caution"]:
            centres, radii = centres[:0], radii[:0]
        # Around the box in any case; otherwise it would be pushed the wrong way.
        margin = self.style["margin"]
        centres, radii = np.vstack([centres, box]), np.append(radii, BEHIND - 0.05 - margin)
        return direction_to(box - BEHIND * way, position, velocity, centres, radii, 3.0, margin)


SEEKERS: dict[str, type[Seeker]] = {"PointPush1": Pusher, "Race2": Racer}
"""Where going straight for the goal is not enough."""


def controller_of(task: str, behaviour: str) -> Callable[[Any, np.random.Generator], Controller]:
    """What makes a controller of a behaviour in FOSP's task `task`. Raises `ConfigurationError`."""
    if behaviour not in NAVIGATION_BEHAVIOURS:
        raise ConfigurationError(f"behavior: unknown {behaviour!r} in {task}, expected one of "
                                 f"{', '.join(NAVIGATION_BEHAVIOURS)}, or mixed")
    if behaviour == "random":
        return Random
    seeker = SEEKERS.get(task, Seeker)
    return lambda env, rng: seeker(env, rng, behaviour == "safe")
