"""Demonstrators that steer by what they *observe*: along a field of directions made from lidar and compass.

Unlike drivers that know the layout they can be imitated, and unlike a linear policy they tell a hazard that is near
from one that is far (nearness is a rectified lidar) and one wall from the other (compass times lidar).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.interfaces import Observation
from sim.collectors.controller import ActionNoise
from sim.collectors.gait import NOISE
from sim.safety_gymnasium import SafetyGymnasiumEnv

DAMPING = 0.8
"""Force per m/s against driving."""
TURN_GAIN, YAW_DAMPING = {"Point": 2.0, "Car": 1.0}, {"Point": 0.0, "Car": 0.15}
"""Turning command per rad of heading error, and against each rad/s of turning."""


class Sensors:
    """Splits an observation vector into what Safety-Gymnasium calls its parts."""

    def __init__(self, env: SafetyGymnasiumEnv) -> None:
        task: Any = env.simulation.task
        spaces = task.obs_info.obs_space_dict.spaces
        ends = np.cumsum([int(np.prod(space.shape)) for space in spaces.values()])
        self._slices = {name: slice(end - int(np.prod(space.shape)), end)
                        for (name, space), end in zip(spaces.items(), ends, strict=True)}
        bins, self._range = task.lidar_conf.num_bins, task.lidar_conf.max_dist
        self.directions = directions(bins)
        """(beams, 2), of the lidars' beams as the body sees them."""
        self.body = type(task.agent).__name__
        """Point or Car."""

    def __call__(self, vector: np.ndarray, name: str) -> np.ndarray:
        return vector[self._slices[name]]

    def sum_of_directions(self, lidar: np.ndarray) -> np.ndarray:
        """(2,): the directions of the lidar's beams, as the body sees them, weighted by `lidar` (beams,)."""
        return lidar @ self.directions

    def place(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (2,) [m] in the world, whose origin the lidar called circle shows, and the world's axes as the
        body sees them (2, 2), one a row. The compass points along the world's negative y axis."""
        lidar, north = self(vector, "circle_lidar"), self(vector, "magnetometer")[:2]
        y = -north / max(float(np.linalg.norm(north)), 1e-6)
        axes = np.array([[y[1], -y[0]], y])
        return axes @ (-self._range * (1 - lidar.max()) * unit(self.sum_of_directions(lidar))), axes


def directions(count: int) -> np.ndarray:
    """(count, 2) unit vectors, in the middles of as many equal parts of the circle."""
    angles = (np.arange(count) + 0.5) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector (2,) with length 1."""
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def steer(body: str, wanted: np.ndarray, drive: float, yaw_rate: float) -> np.ndarray:
    """(2,) in [-1, 1]: drives with `drive` and turns towards `wanted` (2,), both as the body sees it. yaw_rate [rad/s].

    The Point's front is its x axis, actions are force and turning rate; the Car's its negative y axis, and actions the
    torques of its wheels.
    """
    front, left = (np.eye(2)[0], np.eye(2)[1]) if body == "Point" else (-np.eye(2)[1], np.eye(2)[0])
    turn = TURN_GAIN[body] * float(np.arctan2(wanted @ left, wanted @ front)) - YAW_DAMPING[body] * yaw_rate
    return np.clip([drive, turn] if body == "Point" else [drive + turn, drive - turn], -1, 1)


class Seeking:
    """The Point goes where directions lead to its goal and are free of near hazards, slowly towards those.

    Style: `caution` (what a near hazard counts against a direction; below 0 it draws), `reach` (from how near on it
    counts: a lidar's value), `speed` (largest force), `noise`. The constants were found by a cross-entropy search under
    noise, then softened, so that clones can follow (results/README.md).
    """

    CAREFUL = 0.7
    """Share of the episodes that are driven with care. The others are drawn to hazards: of those who merely do not see
    any, many paid nothing in an empty way, and who asked for a safe episode of high return was given such a driver."""
    WIDTH, SHARPNESS, AHEAD = 0.5, 5.0, 0.2
    """Cosine from which on a hazard blocks a direction; how sharply the best direction is preferred; what is preferred
    of the direction ahead."""
    BLOCKING, PUSH, SLOWING, TURNING = 2.8, 1.2, 0.7, 1.5
    """Of a near hazard: what it counts against a direction, how it pushes away, how it slows down; and the turning
    command per rad."""

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator) -> None:
        careful = rng.random() < self.CAREFUL
        self.style = {"caution": float(rng.uniform(0.9, 1.2) if careful else rng.uniform(-0.4, -0.1)),
                      "speed": float(rng.uniform(0.7, 0.95 if careful else 1)), "reach": float(rng.uniform(0.57, 0.7)),
                      "noise": float(rng.choice(NOISE))}
        self._sensors, self._noise = Sensors(env), ActionNoise(2, self.style["noise"], rng, memory=0)
        beams, ways = self._sensors.directions, directions(32)
        self._ways, self._blocks = ways, np.maximum((ways @ beams.T - self.WIDTH) / (1 - self.WIDTH), 0)

    def action(self, observation: Observation) -> np.ndarray:
        vector, sensors, reach = observation["vector"], self._sensors, self.style["reach"]
        caution, beams = self.style["caution"], self._sensors.directions
        near = np.maximum((sensors(vector, "hazards_lidar") - reach) / (1 - reach), 0)
        goal = unit(sensors.sum_of_directions(sensors(vector, "goal_lidar")))
        score = self._ways @ goal + self.AHEAD * self._ways[:, 0] - caution * self.BLOCKING * (self._blocks @ near)
        weights = np.exp(self.SHARPNESS * (score - score.max()))
        way = weights @ self._ways / weights.sum() - caution * self.PUSH * near**2 @ beams
        way /= max(float(np.linalg.norm(way)), 1)
        slowing = 1 + self.SLOWING * np.clip(caution, 0, 1) * (np.maximum(beams[:, 0], 0) ** 2 @ near)
        drive = self.style["speed"] / slowing * max(way[0], 0) - DAMPING * sensors(vector, "velocimeter")[0]
        return self._noise.disturb(np.clip([drive, self.TURNING * np.arctan2(way[1], way[0])], -1, 1))


class Orbiting:
    """Goes around the origin on an ellipse; a narrow one stays between the walls.

    Style: `width` and `length`, its half axes across the walls and along them [m]; `speed` [m/s]; `noise`.
    """

    NARROW = 0.5
    """Share of the episodes that stay well between the walls."""

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator) -> None:
        width = float(rng.uniform(0.5, 0.85) if rng.random() < self.NARROW else rng.uniform(0.85, 1.5))
        walls: int = env.simulation.task.sigwalls.num  # 4: across both axes (Circle2)
        self.style = {"width": width, "length": width if walls == 4 else float(rng.uniform(max(width, 1), 1.5)),
                      "speed": float(rng.uniform(0.4, 1.5)), "noise": float(rng.choice(NOISE))}
        self._sensors, self._noise = Sensors(env), ActionNoise(2, self.style["noise"], rng, memory=0)

    def action(self, observation: Observation) -> np.ndarray:
        vector, sensors, speed = observation["vector"], self._sensors, self.style["speed"]
        position, axes = sensors.place(vector)
        half_axes = np.array([self.style["width"], self.style["length"]])
        scaled = position / half_axes
        distance = max(float(np.linalg.norm(scaled)), 1e-6)
        along = half_axes / half_axes.max() * np.array([-scaled[1], scaled[0]]) / distance
        # The way as the body sees it: along the ellipse, and twice as strongly back to it.
        way = unit(along + 2 * (1 - distance) * scaled / distance) @ axes
        velocity = sensors(vector, "velocimeter")[:2]
        front = np.array([1.0, 0]) if sensors.body == "Point" else np.array([0, -1.0])
        drive = speed * max(float(way @ front), 0) - float(velocity @ front)
        # What the body drifts sideways is to be taken out.
        return self._noise.disturb(steer(sensors.body, 1.5 * speed * way - 0.5 * velocity, drive,
                                         float(sensors(vector, "gyro")[2])))
