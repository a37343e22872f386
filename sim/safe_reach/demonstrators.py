"""Scripted people who give FOSP's four kinds of trajectory (section D.1), no two alike.

Each draws its own route, speed, detours, pauses and action noise. The noisy action is the one
executed and recorded, so the data shows how to recover from states off the planned way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.safe_reach import task
from sim.safe_reach.expert import WaypointFollower, clearance, plan_path

PAPER_COUNTS = {"safe_reach": 120, "safe_no_reach": 30, "contact_reach": 40, "contact_no_reach": 10}
"""Behaviour -> trajectories in the paper's dataset of 200."""
ARRIVAL = 0.012
"""A route point counts as reached within this distance [m]."""
NOISE_MEMORY = 0.8
"""Correlation of the action noise from one step to the next."""
WANDER_CLEARANCE = 0.03
"""Points that a wandering demonstrator visits are this far from every object [m]."""
STUCK_STEPS = 12
"""Steps without coming closer after which a route point is given up: an obstacle may be in the way."""
_INNER = task.HALF_WIDTH - 0.012


@dataclass(frozen=True)
class Style:
    """How one demonstrator moves: share of the largest step, noise (standard deviation of an action
    component, translation and rotation), chance of a pause per step."""

    speed: float
    translation_noise: float
    rotation_noise: float
    pause: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Style:
        return cls(float(rng.uniform(0.5, 1.0)), float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.05, 0.3)),
                   float(rng.choice([0.0, 0.0, 0.05])))


class Demonstrator:
    """Drives one episode of the wanted behaviour; whether it succeeded is for the caller to check.

    behavior: a key of `PAPER_COUNTS`. Raises `KeyError` for another.
    """

    def __init__(self, behavior: str, layout: task.Layout, start: np.ndarray, rng: np.random.Generator) -> None:
        PAPER_COUNTS[behavior]
        self.style = Style.draw(rng)
        self._layout, self._rng = layout, rng
        target = np.array([layout.target.x, layout.target.y])
        # One that must not reach sees the target as one more obstacle.
        everything = task.Layout((*layout.obstacles, layout.target), layout.target)
        self._blocked = everything if behavior.endswith("_no_reach") else layout
        route: list[tuple[np.ndarray, bool]] = []
        if behavior.startswith("contact"):
            route.append((self._obstacle_to_hit(target, np.asarray(start[:2], float)), False))
        if behavior.endswith("no_reach"):
            route += [(point, True) for point in self._free_points(int(rng.integers(2, 6)))]
        else:
            if behavior == "safe_reach" and rng.random() < 0.3:
                route += [(point, True) for point in self._free_points(1)]
            route.append((target, True))
        self._route = route
        self._follower: WaypointFollower | None = None
        self._noise, self._best, self._waited = np.zeros(6), np.inf, 0

    def _obstacle_to_hit(self, target: np.ndarray, start: np.ndarray) -> np.ndarray:
        """An obstacle, the likelier the closer it is to the straight way."""
        places = np.array([[o.x, o.y] for o in self._layout.obstacles])
        along = (target - start) / np.linalg.norm(target - start)
        offset = places - start
        aside = np.abs(offset[:, 0] * along[1] - offset[:, 1] * along[0])
        weight = np.exp(-aside / 0.03)
        return places[self._rng.choice(len(places), p=weight / weight.sum())] + self._rng.uniform(-0.01, 0.01, 2)

    def _free_points(self, count: int) -> list[np.ndarray]:
        points: list[np.ndarray] = []
        everything = task.Layout((*self._layout.obstacles, self._layout.target), None)
        while len(points) < count:
            point = np.array(task.CENTRE) + self._rng.uniform(-_INNER, _INNER, 2)
            if clearance(point, everything) > WANDER_CLEARANCE:
                points.append(point)
        return points

    def action(self, pose_vector: np.ndarray) -> np.ndarray:
        """(6,) float32 action for the tool's pose (6,)."""
        position = np.asarray(pose_vector[:2], float)
        style, rng = self.style, self._rng
        spread = np.repeat([style.translation_noise, style.rotation_noise], 3)
        spread[2] *= 0.5
        fresh = rng.normal(size=6) * spread * np.sqrt(1 - NOISE_MEMORY**2)
        self._noise = NOISE_MEMORY * self._noise + fresh
        if rng.random() < style.pause or not self._advance(position):
            return np.clip(self._noise * 0.3, -1, 1).astype(np.float32)
        return np.clip(self._follower.action(pose_vector) + self._noise, -1, 1).astype(np.float32)

    def _advance(self, position: np.ndarray) -> bool:
        """Goes to the next route point when one is reached or given up. False at the route's end."""
        while self._route:
            point, around = self._route[0]
            distance = float(np.linalg.norm(point - position))
            self._waited = 0 if distance < self._best - 0.002 else self._waited + 1
            self._best = min(self._best, distance)
            if distance < ARRIVAL or self._waited > STUCK_STEPS or not self._on_path(point, around, position):
                self._route.pop(0)
                self._follower, self._best, self._waited = None, np.inf, 0
                continue
            return True
        return False

    def _on_path(self, point: np.ndarray, around: bool, position: np.ndarray) -> bool:
        """Makes sure there is a path to `point`, around the obstacles or straight through them."""
        if self._follower is not None and self._follower.deviation(position) < 0.025:
            return True
        path = plan_path(self._blocked, position, point) if around else np.linspace(position, point, 20)
        if path is not None:
            self._follower = WaypointFollower(path, self.style.speed)
        return path is not None


def behavior_of(success: bool, violation: bool) -> str:
    """The kind of trajectory that an episode with this end was."""
    return f"{'contact' if violation else 'safe'}_{'reach' if success else 'no_reach'}"


def share_counts(episodes: int) -> dict[str, int]:
    """`episodes` divided in the paper's ratio (largest remainders first)."""
    total = sum(PAPER_COUNTS.values())
    exact = {name: episodes * count / total for name, count in PAPER_COUNTS.items()}
    counts = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[:episodes - sum(counts.values())]:
        counts[name] += 1
    return counts
