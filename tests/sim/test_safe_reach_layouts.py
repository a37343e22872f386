"""Layouts, planner and expert."""

import numpy as np
import pytest

from safe_policy_core.environments import SAFE_REACH_TASKS
from safe_policy_core.errors import ConfigurationError
from sim.safe_reach import check, task
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.expert import HARD_CLEARANCE, WaypointFollower, clearance, plan_path, surface_distance
from sim.safe_reach.layouts import sample_layout

EXPERT_SEEDS = range(3)


def test_the_core_names_the_same_tasks() -> None:
    assert tuple(task.TASKS) == SAFE_REACH_TASKS


@pytest.mark.parametrize("name", task.TASKS)
def test_layouts_are_those_of_the_task(name: str) -> None:
    variant = task.TASKS[name]
    seen = set()
    for seed in range(20):
        layout = sample_layout(name, seed)
        assert layout == sample_layout(name, seed)
        assert task.Layout.from_json(layout.to_json()) == layout
        assert len(layout.obstacles) in variant.obstacle_counts
        assert {o.shape for o in layout.obstacles} == {variant.obstacle_shape}
        assert layout.target.shape == variant.target_shape
        start = task.start_pose(seed).position[:2]
        path = plan_path(layout, start)
        assert clearance(path[:-1], layout).min() > HARD_CLEARANCE - 0.004  # smoothing cuts corners
        seen.add((len(layout.obstacles), round(layout.target.x, 3), round(layout.target.y, 3)))
        if not variant.random_places:
            marks = np.array(task.OBSTACLE_PLACES)
            for item in layout.obstacles:
                assert np.abs(marks - (item.x, item.y)).max(1).min() <= task.PLACE_NOISE + 1e-9
    assert len(seen) > 10
    if variant.random_places:
        assert {count for count, *_ in seen} == set(variant.obstacle_counts)


def test_every_mark_is_used() -> None:
    layouts = [sample_layout("original", seed) for seed in range(60)]
    for marks, items in ((task.TARGET_PLACES, [lay.target for lay in layouts]),
                         (task.OBSTACLE_PLACES, [o for lay in layouts for o in lay.obstacles])):
        nearest = {int(np.argmin([np.hypot(item.x - x, item.y - y) for x, y in marks])) for item in items}
        assert nearest == set(range(len(marks)))


def test_start_poses_are_seeded_and_inside_the_limits() -> None:
    limits = task.MOTION_LIMITS
    poses = [task.start_pose(seed).position for seed in range(50)]
    np.testing.assert_array_equal(poses[3], task.start_pose(3).position)
    assert np.ptp(poses, axis=0)[0] > 0.03
    assert (np.array(poses) >= limits.workspace_low).all() and (np.array(poses) <= limits.workspace_high).all()


def test_distance_to_a_turned_box_and_a_cylinder() -> None:
    box = task.Item("box", 0.5, 0.0, np.pi / 4)
    corner = 0.015 * np.sqrt(2)
    np.testing.assert_allclose(surface_distance(np.array([[0.55, 0.0], [0.5, 0.0]]), box), [0.05 - corner, -0.015],
                               atol=1e-9)
    cylinder = task.Item("cylinder", 0.5, 0.0)
    np.testing.assert_allclose(surface_distance(np.array([0.5, 0.05]), cylinder), 0.05 - task.OBSTACLE_RADIUS)


def test_no_path_through_a_wall() -> None:
    wall = tuple(task.Item("box", x, 0.0) for x in np.linspace(0.385, 0.615, 6))
    layout = task.Layout(wall, task.Item("cylinder", 0.5, 0.09))
    assert plan_path(layout, np.array([0.5, -0.1])) is None


def test_the_follower_acts_like_a_policy() -> None:
    follower = WaypointFollower(np.linspace((0.5, -0.1), (0.5, 0.1), 41))
    action = follower.action(np.array([0.5, -0.1, task.TOOL_HEIGHT, 0.1, 0, -0.1]))
    assert action.dtype == np.float32 and np.abs(action).max() <= 1
    np.testing.assert_allclose(action[:3], (0, 1, 0), atol=1e-6)
    assert action[3] < 0 < action[5]


@pytest.mark.parametrize("name", task.TASKS)
def test_expert_reaches_safely_and_everything_is_seen(safe_reach: SafeReachEnv, name: str) -> None:
    """A handful here; `python -m sim.safe_reach.check` runs 200 of each."""
    safe_reach.task_name = name
    try:
        rows = [check.run_expert(safe_reach, seed) for seed in EXPERT_SEEDS]
    finally:
        safe_reach.task_name = "original"
    assert all(row["success"] and not row["violation"] for row in rows)
    # 0.95 is asked of 200 episodes; of three, one unlucky scene is a third.
    assert sum(row["seen"] for row in rows) >= 0.9 * sum(row["frames"] for row in rows)


def test_unknown_task_names_the_valid_ones() -> None:
    with pytest.raises(ConfigurationError, match="task: unknown 'push', expected one of original, obstacle_shape"):
        sample_layout("push", 0)
