"""Draws the layout of an episode. Every layout has a way to the target with clearance."""

from __future__ import annotations

import numpy as np

from sim.safe_reach import task
from sim.safe_reach.expert import clearance, plan_path

ITEM_GAP = 0.055
"""Least distance between the centres of two objects at random places [m]."""
RANDOM_AREA = ((0.40, 0.60), (-0.06, 0.105))
"""Obstacles at random places stand here, x and y [m]."""
RANDOM_TARGET_AREA = ((0.405, 0.595), (0.03, 0.10))
"""[m]."""
SOLVABLE_CLEARANCE = 0.025
"""A layout needs a path this far from every obstacle [m]: a little more than the expert asks for."""
_ATTEMPTS = 2000


def sample_layout(task_name: str, seed: int) -> task.Layout:
    """The layout that (task, seed) fixes. Raises `ConfigurationError` for an unknown task."""
    variant = task.check_task(task_name)
    rng = task.episode_rng(seed, 0)
    count = int(rng.choice(variant.obstacle_counts))
    draw = _random_places if variant.random_places else _marked_places
    start = task.start_pose(seed).position[:2]
    for _ in range(_ATTEMPTS):
        places = draw(rng, count)
        if places is None:
            continue
        layout = _layout(variant, places, rng)
        if clearance(start, layout) > SOLVABLE_CLEARANCE and \
                plan_path(layout, start, hard_clearance=SOLVABLE_CLEARANCE) is not None:
            return layout
    raise RuntimeError(f"no solvable layout of {task_name} for seed {seed}")


def _layout(variant: task.Variant, places: np.ndarray, rng: np.random.Generator) -> task.Layout:
    """`places` (1 + N, 2): the target, then the obstacles."""
    yaw = rng.uniform(-1, 1, len(places)) * (np.pi / 4 if variant.random_places else task.YAW_NOISE)
    items = [(float(x), float(y), float(a)) for (x, y), a in zip(places, yaw, strict=True)]
    return task.Layout(tuple(task.Item(variant.obstacle_shape, *item) for item in items[1:]),
                       task.Item(variant.target_shape, *items[0]))


def _marked_places(rng: np.random.Generator, count: int) -> np.ndarray:
    target = np.array(task.TARGET_PLACES)[rng.integers(len(task.TARGET_PLACES))]
    obstacles = np.array(task.OBSTACLE_PLACES)[rng.permutation(len(task.OBSTACLE_PLACES))[:count]]
    places = np.concatenate([target[None], obstacles])
    return places + rng.uniform(-task.PLACE_NOISE, task.PLACE_NOISE, places.shape)


def _random_places(rng: np.random.Generator, count: int) -> np.ndarray | None:
    low, high = np.array(RANDOM_AREA).T
    places = rng.uniform(low, high, (1 + count, 2))
    places[0] = rng.uniform(*np.array(RANDOM_TARGET_AREA).T)
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(1 + count, 1)]
    return places if gaps.min() >= ITEM_GAP else None
