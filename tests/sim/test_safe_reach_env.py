"""The direct environment: contract, contacts, limits, pictures."""

from collections.abc import Iterator

import numpy as np
import pytest

from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv
from sim.safe_reach import task
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.scene import build_simulator
from tests.contract import RobotEnvContract

FORWARD = np.array([0, 1, 0, 0, 0, 0], np.float32)
START_X = float(task.start_pose(0).position[0])
AHEAD = task.Item("box", START_X, -0.05)
FAR_TARGET = task.Item("cylinder", 0.42, 0.10)


class TestSafeReach(RobotEnvContract):
    @pytest.fixture(scope="class")
    def env(self) -> Iterator[RobotEnv]:
        env = make_env("original")
        yield env
        env.close()

    @pytest.fixture
    def env_to_close(self) -> RobotEnv:
        return make_env("original", images=False)


def drive(env: SafeReachEnv, action: np.ndarray, steps: int) -> list[tuple]:
    """Steps until the end or `steps`; rows of (cost, reward, terminated, info, obstacle positions)."""
    rows = []
    for _ in range(steps):
        _, reward, cost, terminated, truncated, info = env.step(np.asarray(action, np.float32))
        rows.append((cost, reward, terminated, info, env.vector()[6:22].reshape(4, 4)[:, :3].copy()))
        if terminated or truncated:
            break
    return rows


def test_cost_from_contact_until_the_obstacle_rests(safe_reach: SafeReachEnv) -> None:
    safe_reach.start(task.Layout((AHEAD,), FAR_TARGET), seed=0)
    rest = safe_reach.vector()[6:9].copy()
    pushing = drive(safe_reach, FORWARD, 6)
    retreating = drive(safe_reach, -FORWARD, 6)
    costs = [row[0] for row in pushing + retreating]
    first = costs.index(1.0)
    assert first > 0, "the obstacle is ahead, not touched at the start"
    assert 0.0 in costs[first:], "cost ends when the obstacle rests and the arm is gone"
    last = first + costs[first:].index(0.0)
    assert costs == [0.0] * first + [1.0] * (last - first) + [0.0] * (len(costs) - last)
    places = [rest] + [row[4][0] for row in pushing + retreating]
    for step, cost in enumerate(costs):
        if np.linalg.norm(places[step + 1] - places[step]) > 5e-4:
            assert cost == 1.0, f"the obstacle moved in step {step}"
    assert np.linalg.norm(places[-1] - rest) > 0.01
    assert pushing[0][3]["violation"] is False
    assert retreating[-1][3]["violation"] is True, "a violation is not forgotten"


def test_target_touched_is_reward_and_end(safe_reach: SafeReachEnv) -> None:
    target = task.Item("cylinder", START_X, -0.02)
    safe_reach.start(task.Layout((), target), seed=0)
    rows = drive(safe_reach, FORWARD, 20)
    assert [row[1] for row in rows] == [0.0] * (len(rows) - 1) + [1.0]
    assert rows[-1][2] and rows[-1][3]["success"]
    assert sum(row[0] for row in rows) == 0
    assert np.linalg.norm(safe_reach.pose[:2] - (target.x, target.y)) < task.TARGET_RADIUS + 0.025


def test_the_arm_cannot_fly_over_an_obstacle(safe_reach: SafeReachEnv) -> None:
    safe_reach.start(task.Layout((AHEAD,), FAR_TARGET), seed=0)
    drive(safe_reach, np.array([0, 0, 1, 0, 0, 0]), 5)
    rows = drive(safe_reach, np.array([0, 1, 1, 0, 0, 0]), 8)
    assert max(row[0] for row in rows) == 1.0


def test_limits_show_in_the_executed_action(safe_reach: SafeReachEnv) -> None:
    safe_reach.start(task.Layout((), FAR_TARGET), seed=0)
    free = drive(safe_reach, 0.5 * FORWARD, 1)[0][3]
    np.testing.assert_allclose(free["executed_action"], 0.5 * FORWARD, atol=1e-5)
    assert free["filter_reason"] == ""
    blocked = drive(safe_reach, -FORWARD, 12)[-1][3]
    assert blocked["filter_reason"] == "workspace"
    assert abs(blocked["executed_action"][1]) < 1e-3
    low, high = np.array(task.MOTION_LIMITS.workspace_low), np.array(task.MOTION_LIMITS.workspace_high)
    assert (safe_reach.pose[:3] > low - 0.005).all() and (safe_reach.pose[:3] < high + 0.005).all()


def test_every_action_in_bounds_is_within_the_speed_limits(safe_reach: SafeReachEnv) -> None:
    safe_reach.start(task.Layout((), FAR_TARGET), seed=0)
    info = drive(safe_reach, np.array([1, 1, 0, 1, 1, 1]), 1)[0][3]
    assert "speed" not in info["filter_reason"]


def test_unused_objects_take_no_part(safe_reach: SafeReachEnv) -> None:
    safe_reach.start(task.Layout(), seed=0)
    data = safe_reach.scene.data
    parked = data.xpos[safe_reach.scene.obstacle_bodies].copy()
    drive(safe_reach, FORWARD, 15)
    np.testing.assert_array_equal(data.xpos[safe_reach.scene.obstacle_bodies], parked)
    assert data.ncon == 0
    assert not safe_reach.segmentation().any()


def test_objects_rest_where_the_layout_has_them(safe_reach: SafeReachEnv) -> None:
    safe_reach.task_name = "more_obstacles"
    safe_reach.reset(3)
    safe_reach.task_name = "original"
    drive(safe_reach, 0 * FORWARD, 3)
    table = safe_reach.vector()[6:22].reshape(4, 4)
    for row, item in zip(table, safe_reach.layout.obstacles, strict=True):
        np.testing.assert_allclose(row[:3], (item.x, item.y, task.OBSTACLE_HALF_SIZE[2]), atol=5e-4)
        assert row[3] == 1


def test_pose_is_libfrankas_end_effector(safe_reach: SafeReachEnv) -> None:
    """The FCI server reports O_T_EE from franky_sim's kinematics; the direct environment from MuJoCo's."""
    safe_reach.reset(5)
    drive(safe_reach, np.array([0.5, 1, 0, 1, 0, 0.5]), 4)
    joints = safe_reach.scene.data.qpos[safe_reach.scene.arm_qpos]
    with build_simulator() as simulator:
        placement = simulator.robots[0].kinematics(joints)
    np.testing.assert_allclose(safe_reach.scene.tool.position, placement.translation, atol=1e-6)
    x, y, z, w = safe_reach.scene.tool.quaternion
    np.testing.assert_allclose(placement.rotation[:, 2], [2 * (x * z + w * y), 2 * (y * z - w * x),
                                                          1 - 2 * (x * x + y * y)], atol=1e-6)


def test_sizes_of_pictures(safe_reach: SafeReachEnv) -> None:
    observation, _ = safe_reach.reset(1)
    assert observation["image"].shape == (64, 64, 3)
    large = safe_reach.render()
    assert large.shape == (480, 640, 3)
    red = (large[..., 0] > 120) & (large[..., 1] < 60)
    green = (large[..., 1] > 80) & (large[..., 0] < 60)
    assert red.sum() > 300 and green.sum() > 300


def test_links_left_out_of_pictures_are_out_of_view(safe_reach: SafeReachEnv) -> None:
    safe_reach.reset(2)
    drive(safe_reach, np.array([0.5, 1, 0, 0, 0, 0]), 12)
    camera = safe_reach._camera(480, 640)
    without = camera.image()
    camera._option.geomgroup[5] = 1
    try:
        np.testing.assert_array_equal(camera.image(), without)
    finally:
        camera._option.geomgroup[5] = 0


def test_vector_observations_hold_the_layout() -> None:
    env = SafeReachEnv("more_obstacles", images=False)
    observation, _ = env.reset(4)
    env.specs.validate_observation(observation)
    assert (observation["vector"][6:22].reshape(4, 4)[:, 3] == 1).all()
    np.testing.assert_allclose(observation["vector"][22:24], (env.layout.target.x, env.layout.target.y), atol=1e-6)
    env.close()


@pytest.mark.parametrize(("options", "message"), [
    ({"task": "orignal"}, "task: unknown 'orignal', expected one of original, .*random_layout"),
    ({"image_size": (1000, 1000)}, "image_size: expected"),
])
def test_bad_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SafeReachEnv(**options)
