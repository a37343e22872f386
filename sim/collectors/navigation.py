"""Demonstrators of PointGoal1, PointCircle1 and CarCircle1."""

from __future__ import annotations

import numpy as np

from safe_policy_core.interfaces import Observation
from sim.collectors.controller import ActionNoise
from sim.collectors.obstacles import direction_to
from sim.collectors.vehicle import Vehicle
from sim.safety_gymnasium import SafetyGymnasiumEnv

NOISE = (0.1, 0.3, 0.5)
"""Standard deviations of the noise, one an episode.

White (`memory=0`), and strong: with a memory of 0.9 and 0.05 to 0.3, the last action (which the gyroscope and the
accelerometer tell) foretold the next better than the place on the track did. Whatever imitated it repeated its own last
action, and drove on the spot (normalised reward of cloning safe episodes of PointCircle1: 0.01)."""


class GoalSeeker:
    """Drives to the goal, more or less around the hazards.

    Style: `speed` [m/s], `caution` (what a hazard in the way counts against the detour: 0 drives through), `margin`
    kept from a hazard's edge [m], `noise`.
    """

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator) -> None:
        self._task, self._vehicle = env.simulation.task, Vehicle(env.simulation)
        reckless = rng.random() < 0.35
        self.style = {"speed": float(rng.uniform(0.1, 1.2)), "caution": 0.0 if reckless else float(rng.uniform(0.3, 4)),
                      "margin": float(rng.uniform(-0.05, 0.2)), "noise": float(rng.choice(NOISE))}
        self._noise = ActionNoise(2, self.style["noise"], rng, memory=0)

    def action(self, observation: Observation) -> np.ndarray:
        return self._noise.disturb(self._vehicle.action(self.style["speed"] * self._direction()))

    def _direction(self) -> np.ndarray:
        hazards = np.array(self._task.hazards.pos)[:, :2]
        return direction_to(self._task.goal.pos[:2], self._vehicle.position, self._vehicle.velocity, hazards,
                            np.full(len(hazards), self._task.hazards.size), self.style["caution"], self.style["margin"])


SHARPNESS = 8
"""Exponent of the track's outline: the circle cut by the walls with rounded corners."""


class CircleRunner:
    """Runs around the circle, counter-clockwise, inside the walls or across them.

    The track is the outline of (|x| / wall)^p + (radius / R)^p = 1. Style: `wall` (|x| it keeps within [m]; the
    cost begins at 1.125), `radius` R [m], `speed` [m/s], `noise`.
    """

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator) -> None:
        self._vehicle = Vehicle(env.simulation)
        careful = rng.random() < 0.5
        wall = rng.uniform(0.6, 1.1) if careful else rng.uniform(1.0, 2.0)
        self.style = {"wall": float(wall), "radius": float(rng.uniform(0.8, 1.6)),
                      "speed": float(rng.uniform(0.3, 1.8)), "noise": float(rng.choice(NOISE))}
        self._noise = ActionNoise(2, self.style["noise"], rng, memory=0)

    def action(self, observation: Observation) -> np.ndarray:
        return self._noise.disturb(self._vehicle.action(self.style["speed"] * self._direction()))

    def _direction(self) -> np.ndarray:
        position = self._vehicle.position
        wall, track = self.style["wall"], self.style["radius"]
        radius = max(float(np.linalg.norm(position)), 1e-3)
        sides, circle = (abs(position[0]) / wall) ** SHARPNESS, (radius / track) ** SHARPNESS
        # Size of the position measured in tracks: 1 on it, whatever the exponent.
        size = max((sides + circle) ** (1 / SHARPNESS), 1e-3)
        normal = circle * position / radius**2
        normal[0] += sides * np.sign(position[0]) / max(abs(position[0]), 1e-3)
        normal /= max(float(np.linalg.norm(normal)), 1e-9)
        along = np.array([-normal[1], normal[0]])
        direction = along + np.clip(3 * (1 - size), -2, 2) * normal
        return direction / np.linalg.norm(direction)
