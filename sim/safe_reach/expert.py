"""A planner with privileged state: A* around the obstacles and a follower that acts like a policy.

Pure numpy: the scripted operator of `data_collection` plans with it over ROS, where there is no simulator.
"""

from __future__ import annotations

import heapq

import numpy as np

from sim.safe_reach import task

CELL = 0.005
"""Grid spacing [m]."""
HARD_CLEARANCE = 0.022
"""No path comes closer than this to an obstacle's surface [m]: half a closed pair of fingers and the lag."""
SOFT_CLEARANCE = 0.036
"""Paths cost more below this distance [m]."""
SOFT_COST = 4.0
"""Extra cost per cell at `HARD_CLEARANCE`, falling to 0 at `SOFT_CLEARANCE`."""
LOOK_AHEAD = 0.022
"""The follower heads for the point of the path this far ahead of the nearest one [m]."""
ROTATION_GAIN = 0.5
"""Share of the orientation error that one action takes back."""

_LOW = np.array([task.CENTRE[0] - task.HALF_WIDTH, task.CENTRE[1] - task.HALF_WIDTH])
_CELLS = round(2 * task.HALF_WIDTH / CELL) + 1
_AXIS = np.arange(_CELLS) * CELL
_GRID = np.stack(np.meshgrid(_AXIS + _LOW[0], _AXIS + _LOW[1], indexing="ij"), -1)


def surface_distance(points: np.ndarray, item: task.Item) -> np.ndarray:
    """Distance [m] in the plane of `points` (..., 2) to the side of an obstacle, negative inside."""
    offset = np.asarray(points, float) - (item.x, item.y)
    if item.shape == "cylinder":
        return np.linalg.norm(offset, axis=-1) - task.OBSTACLE_RADIUS
    c, s = np.cos(item.yaw), np.sin(item.yaw)
    local = np.abs(offset @ np.array([[c, -s], [s, c]])) - task.OBSTACLE_HALF_SIZE[:2]
    return np.linalg.norm(np.maximum(local, 0), axis=-1) + np.minimum(local.max(-1), 0)


def clearance(points: np.ndarray, layout: task.Layout) -> np.ndarray:
    """Distance [m] of `points` (..., 2) to the nearest obstacle; infinite on a table without obstacles."""
    points = np.asarray(points, float)
    distances = [surface_distance(points, item) for item in layout.obstacles]
    return np.min(distances, axis=0) if distances else np.full(points.shape[:-1], np.inf)


def plan_path(layout: task.Layout, start: np.ndarray, goal: np.ndarray | None = None,
              hard_clearance: float = HARD_CLEARANCE) -> np.ndarray | None:
    """Waypoints (N, 2) [m] from `start` to `goal` (default: the target), or None when there is no way.

    A start inside the clearance is let out of it; the goal's cell is always allowed.
    """
    end = np.array([layout.target.x, layout.target.y]) if goal is None else np.asarray(goal, float)
    free = clearance(_GRID, layout)
    closeness = (SOFT_CLEARANCE - free) / (SOFT_CLEARANCE - hard_clearance)
    extra = SOFT_COST * np.clip(closeness, 0, 1) + np.where(free < hard_clearance, np.inf, 0)
    begin_cell, end_cell = _cell(start), _cell(end)
    near_start = np.linalg.norm(_GRID - _GRID[begin_cell], axis=-1) < hard_clearance + CELL
    if free[begin_cell] < hard_clearance:
        extra[near_start & (free >= free[begin_cell] - 1e-9)] = SOFT_COST * 4
    extra[end_cell] = 0
    cells = _a_star(extra, begin_cell, end_cell)
    if cells is None:
        return None
    path = _GRID[tuple(np.array(cells).T)].copy()
    path[0], path[-1] = np.clip(start, _GRID[0, 0], _GRID[-1, -1]), end
    return _smooth(path)


def _cell(point: np.ndarray) -> tuple[int, int]:
    i, j = np.clip(np.round((np.asarray(point, float) - _LOW) / CELL), 0, _CELLS - 1).astype(int)
    return int(i), int(j)


_MOVES = [(i, j, float(np.hypot(i, j))) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]


def _a_star(extra: np.ndarray, begin: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]] | None:
    cost = {begin: 0.0}
    parent: dict[tuple[int, int], tuple[int, int]] = {}
    penalty, done = extra.tolist(), set()
    queue = [(0.0, begin)]
    while queue:
        _, here = heapq.heappop(queue)
        if here == end:
            cells = [here]
            while here in parent:
                here = parent[here]
                cells.append(here)
            return cells[::-1]
        if here in done:
            continue
        done.add(here)
        for di, dj, length in _MOVES:
            i, j = here[0] + di, here[1] + dj
            if not (0 <= i < _CELLS and 0 <= j < _CELLS) or penalty[i][j] == np.inf:
                continue
            total = cost[here] + length * (1 + penalty[i][j])
            if total < cost.get((i, j), np.inf):
                cost[i, j] = total
                parent[i, j] = here
                heapq.heappush(queue, (total + float(np.hypot(i - end[0], j - end[1])), (i, j)))
    return None


def _smooth(path: np.ndarray, passes: int = 4) -> np.ndarray:
    """Rounds the corners of an 8-connected path by averaging neighbours; the ends stay."""
    for _ in range(passes if len(path) > 2 else 0):
        path[1:-1] = (path[:-2] + 2 * path[1:-1] + path[2:]) / 4
    return path


class WaypointFollower:
    """Pure pursuit along a path, at a share `speed` of the largest step."""

    def __init__(self, path: np.ndarray, speed: float = 1.0) -> None:
        self.path = np.asarray(path, float)
        self.speed = speed
        self._index = 0

    def deviation(self, position: np.ndarray) -> float:
        """Distance [m] of the tool from the nearest waypoint."""
        return float(np.linalg.norm(self.path - position[:2], axis=1).min())

    def direction(self, position: np.ndarray) -> np.ndarray:
        """(2,) unit vector towards the path ahead of `position`; zeros at its end."""
        # Only ahead of what was passed: a path that bends back does not pull the tool across the bend.
        ahead = self.path[self._index:self._index + 24]
        self._index += int(np.argmin(np.linalg.norm(ahead - position[:2], axis=1)))
        index = self._index
        while index < len(self.path) - 1 and np.linalg.norm(self.path[index] - position[:2]) < LOOK_AHEAD:
            index += 1
        offset = self.path[index] - position[:2]
        distance = float(np.linalg.norm(offset))
        return offset / distance if distance > 1e-6 else np.zeros(2)

    def action(self, pose_vector: np.ndarray) -> np.ndarray:
        """(6,) action in [-1, 1] from the tool's pose (6,) as the `pose` observation has it."""
        action = np.zeros(6, np.float32)
        action[:2] = self.direction(pose_vector) * self.speed
        action[2] = (task.TOOL_HEIGHT - pose_vector[2]) / task.MAX_TRANSLATION_STEP
        action[3:] = -ROTATION_GAIN * np.asarray(pose_vector[3:]) / task.MAX_ROTATION_STEP
        return np.clip(action, -1, 1)


class ExpertPolicy:
    """Plans when an episode starts and again when pushed off the path."""

    REPLAN_DISTANCE = 0.02
    """[m]."""

    def __init__(self, speed: float = 0.8) -> None:
        self.speed = speed
        self._follower: WaypointFollower | None = None
        self._layout: task.Layout | None = None

    def reset(self) -> None:
        self._follower = self._layout = None

    def action(self, pose_vector: np.ndarray, layout: task.Layout) -> np.ndarray:
        """(6,) action towards the target of `layout`; zeros when no way is left."""
        follower = self._follower
        if follower is None or layout != self._layout or follower.deviation(pose_vector) > self.REPLAN_DISTANCE:
            path = plan_path(layout, pose_vector[:2])
            if path is None:
                path = plan_path(layout, pose_vector[:2], hard_clearance=HARD_CLEARANCE * 0.7)
            if path is None:
                return np.zeros(6, np.float32)
            self._follower, self._layout = WaypointFollower(path, self.speed), layout
        return self._follower.action(pose_vector)
