"""What costs in Safety-Gymnasium's navigation tasks as circles, and the way between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import ConvexHull

DIRECTIONS = 48
"""Directions among which one that seeks a goal chooses."""
LOOK_AHEAD = np.linspace(0.1, 0.6, 6)
"""How far along each it looks for obstacles [m]."""
TURN_COST = 0.15
"""What a direction loses for being opposite to the present velocity: keeps it from swaying between two ways round."""
SCALE = 0.2
"""An intrusion of as much into an obstacle and its margin [m] counts the whole caution."""
AGENT = 0.15
"""From the agent's middle to the tip of its arrow [m]: what it touches."""
BOX = 2**0.5
"""A box's corner is so much farther from its middle than its side."""
POST = 0.1
"""Distance of the points that stand for a wall [m]."""

_angles = np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS
UNIT_VECTORS = np.stack([np.cos(_angles), np.sin(_angles)], -1)


def direction_to(target: np.ndarray, position: np.ndarray, velocity: np.ndarray, centres: np.ndarray,
                 radii: np.ndarray, caution: float, margin: float) -> np.ndarray:
    """Unit vector (2,) that leads to the target and not into circles (K, 2), (K,) [m] widened by `margin`.

    caution: what `SCALE` of intrusion counts against a direction; that straight to the target counts 1 in its favour.
    """
    offset = target - position
    distance = float(np.linalg.norm(offset))
    reach = np.minimum(LOOK_AHEAD, distance)
    points = position + UNIT_VECTORS[:, None] * reach[:, None]
    gaps = (np.linalg.norm(points[:, :, None] - centres, axis=-1) - radii).min((1, 2))
    intrusion = np.clip((margin - gaps) / SCALE, 0, None)
    sway = TURN_COST * (1 - UNIT_VECTORS @ velocity / max(float(np.linalg.norm(velocity)), 1e-6)) / 2
    score = UNIT_VECTORS @ (offset / max(distance, 1e-6)) - caution * intrusion - sway
    return UNIT_VECTORS[int(np.argmax(score))]


EXTENT, CELL = 3.5, 0.1
"""Half the side of the planner's square and of its cells' [m]; floors are as large."""
AHEAD = 4
"""Cells from the agent to the waypoint."""
DETOUR = 10.0
"""What a cell counts more per `SCALE` of intrusion into the margin: as many cells of detour are as long."""
INSIDE = 50.0
"""What a cell inside a circle counts besides."""


class Planner:
    """Costs to go on a grid, from which waypoints around obstacles follow; the local rule alone gets stuck between."""

    def __init__(self) -> None:
        side = np.arange(-EXTENT, EXTENT + CELL / 2, CELL)
        self._cells = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
        self._known: np.ndarray | None = None

    def waypoint(self, target: np.ndarray, position: np.ndarray, centres: np.ndarray, radii: np.ndarray,
                 margin: float) -> np.ndarray:
        """(2,) [m], on the way to the target; the target itself when it is near."""
        known = np.vstack([centres, target])
        # Small movements do not change the way.
        if self._known is None or known.shape != self._known.shape or np.abs(known - self._known).max() > CELL:
            self._known, self._to_go = known, self._costs_to_go(target, centres, radii, margin)
        cell = self._index(position)
        for _ in range(AHEAD):
            low = np.maximum(cell - 1, 0)
            around = self._to_go[low[0]:cell[0] + 2, low[1]:cell[1] + 2]
            cell = low + np.array(np.unravel_index(np.argmin(around), around.shape))
        return target if self._to_go[tuple(cell)] == 0 else self._cells[tuple(cell)]

    def _index(self, point: np.ndarray) -> np.ndarray:
        return np.clip(np.round((point + EXTENT) / CELL).astype(int), 0, len(self._cells) - 1)

    def _costs_to_go(self, target: np.ndarray, centres: np.ndarray, radii: np.ndarray, margin: float) -> np.ndarray:
        gaps = (np.linalg.norm(self._cells[:, :, None] - centres, axis=-1) - radii).min(-1)
        enter = 1 + DETOUR * np.clip((margin - gaps) / SCALE, 0, None) + INSIDE * (gaps < 0)
        costs = np.full(np.add(gaps.shape, 2), np.inf)  # with a border that is never reached
        goal = tuple(self._index(target) + 1)
        size = len(gaps)
        while True:
            costs[goal] = 0
            best = np.min([costs[1 + i:1 + i + size, 1 + j:1 + j + size] + enter * np.hypot(i, j)
                           for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j], 0)
            if (best >= costs[1:-1, 1:-1]).all():
                return costs[1:-1, 1:-1]
            costs[1:-1, 1:-1] = np.minimum(best, costs[1:-1, 1:-1])


class CircularObstacles:
    """The obstacles of a task that cost, and its pillars, which only stand in the way."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._posts = _walls(task) if getattr(task, "static_geoms_names", None) else np.empty((0, 2))

    def around(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres (K, 2) and radii (K,) [m] that the agent's middle must not come nearer to."""
        task = self._task
        circles = [(centre, task.hazards.size) for centre in task.hazards.pos]
        for name, shape in (("vases", BOX), ("gremlins", BOX), ("pillars", 1.0)):
            found = getattr(task, name, None)
            if found is not None:
                circles += [(centre, found.size * shape + AGENT) for centre in found.pos]
        if (buttons := getattr(task, "buttons", None)) is not None:
            circles += [(centre, buttons.size + AGENT) for index, centre in enumerate(buttons.pos)
                        if index != buttons.goal_button]
        circles += [(post, AGENT) for post in self._posts]
        return np.array([centre[:2] for centre, _ in circles]), np.array([radius for _, radius in circles])


def _walls(task: Any) -> np.ndarray:
    """Points (K, 2) [m] along the outlines of what a race track's walls are to the physics: their meshes' convex hulls,
    which leave less of the track than one sees, 0.32 m in its first leg."""
    model, data, points = task.model, task.data, []
    for number in range(model.ngeom):
        if not model.geom(number).name.startswith("race_wall"):
            continue
        mesh = model.geom_dataid[number]
        begin = model.mesh_vertadr[mesh]
        corners = model.mesh_vert[begin:begin + model.mesh_vertnum[mesh]] @ data.geom_xmat[number].reshape(3, 3).T
        flat = corners[:, :2] + data.geom_xpos[number, :2]
        outline = flat[ConvexHull(flat).vertices]
        for start, end in zip(outline, np.roll(outline, -1, 0), strict=True):
            count = max(round(float(np.linalg.norm(end - start)) / POST), 1)
            points.append(start + (end - start) * np.arange(count)[:, None] / count)
    return np.concatenate(points)
