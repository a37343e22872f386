import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv
from sim.safety_gymnasium import FrontBackEnv, SafetyGymnasiumEnv
from sim.safety_gymnasium.repaired_import import import_safety_gymnasium
from tests.contract import RobotEnvContract


class TestPointGoal(RobotEnvContract):
    @pytest.fixture(scope="class")
    def env(self) -> Iterator[RobotEnv]:
        env = make_env("SafetyPointGoal1-v0")
        yield env
        env.close()

    @pytest.fixture
    def env_to_close(self) -> RobotEnv:
        return make_env("SafetyPointGoal1-v0")

    def test_driving_on_into_hazards_costs(self, env: RobotEnv) -> None:
        """Forward at full speed: on some of these seeds the point crosses a hazard."""
        costs = []
        for seed in range(5):
            env.reset(seed)
            costs.append(sum(env.step(np.array([1.0, 0.1], np.float32))[2] for _ in range(300)))
        assert max(costs) > 0


def test_without_the_sky_nothing_but_pictures_changes() -> None:
    env = SafetyGymnasiumEnv("SafetyPointGoal1-v0")
    env.reset(3)
    assert "star_hd" not in env.simulation.task.world.xml_string
    plain = [env.step(np.array([0.5, 0.25], np.float32))[0]["vector"] for _ in range(50)]
    env.simulation.reset(seed=3)
    assert "star_hd" in env.simulation.task.world.xml_string
    for vector in plain:
        # Action bounds of the Point are [-1, 1] already.
        starry = env.simulation.step(np.array([0.5, 0.25], np.float32))[0]
        np.testing.assert_array_equal(vector, starry.astype(np.float32))
    env.close()


class TestPointGoalVision(RobotEnvContract):
    @pytest.fixture(scope="class")
    def env(self) -> Iterator[RobotEnv]:
        env = make_env("SafetyPointGoal1Vision-v0")
        yield env
        env.close()

    @pytest.fixture
    def env_to_close(self) -> RobotEnv:
        return make_env("SafetyPointGoal1Vision-v0")

    def test_step_after_the_end(self, env: RobotEnv) -> None:
        """A whole episode of 1000 rendered frames would add nothing to the vector variant's."""

    def test_picture_shows_something(self, env: RobotEnv) -> None:
        image = env.reset(0)[0]["image"]
        assert image.std() > 5


class TestSwimmer(RobotEnvContract):
    """Its model as it ships is refused by MuJoCo 3."""

    @pytest.fixture(scope="class")
    def env(self) -> Iterator[RobotEnv]:
        env = make_env("SafetySwimmerVelocityGymnasium-v1")
        yield env
        env.close()

    @pytest.fixture
    def env_to_close(self) -> RobotEnv:
        return make_env("SafetySwimmerVelocity-v1")

    def test_swimming_in_a_wave_moves_forward_and_costs(self, env: RobotEnv) -> None:
        env.reset(0)
        wave = np.sin(0.3 * np.arange(300)[:, None] + np.array([0.0, 1.5])).astype(np.float32)
        steps = [env.step(action) for action in wave]
        assert sum(step[1] for step in steps) > 5
        assert 0 < sum(step[2] for step in steps) < 300


def test_repair_of_dataclasses_is_undone() -> None:
    import_safety_gymnasium()

    with pytest.raises(ValueError, match="mutable default"):
        @dataclasses.dataclass
        class Refused:
            field: np.ndarray = np.zeros(1)  # noqa: RUF009 (what Python 3.11 must refuse again)


def test_unknown_task_is_named() -> None:
    with pytest.raises(ConfigurationError, match="SafetyPointNope1"):
        SafetyGymnasiumEnv("SafetyPointNope1-v0")
    with pytest.raises(ConfigurationError, match="more_obstacles"):
        make_env("nope")


class TestActionRepeat:
    def test_rewards_and_costs_add_up_and_the_last_observation_is_seen(self) -> None:
        once, four = SafetyGymnasiumEnv("SafetyPointGoal1-v0"), make_env("PointGoal1-state")
        action = np.array([1.0, 0.1], np.float32)
        for env in (once, four):
            env.reset(1)
            env.simulation.task.hazards.size = 5.0  # type: ignore[attr-defined]  # so that every step costs 1
        for _ in range(10):
            singles = [once.step(action) for _ in range(4)]
            observation, reward, cost, *_, info = four.step(action)
            assert reward == pytest.approx(sum(step[1] for step in singles), abs=1e-6)
            assert cost == sum(step[2] for step in singles) == 4
            np.testing.assert_allclose(observation["vector"], singles[-1][0]["vector"], atol=1e-4)
            assert info["violation"]
        once.close()
        four.close()

    def test_an_end_within_the_repeats_is_the_end(self) -> None:
        env = SafetyGymnasiumEnv("SafetyPointGoal1-v0", repeat=4)
        env.reset(0)
        env.simulation.task.num_steps = 6
        action = np.zeros(2, np.float32)
        assert env.step(action)[3:5] == (False, False)
        observation, *_, terminated, truncated, _ = env.step(action)
        assert (terminated, truncated) == (False, True)
        assert observation["vector"].shape == (60,)
        with pytest.raises(RuntimeError, match="reset"):
            env.step(action)
        env.close()

    def test_of_at_least_one(self) -> None:
        with pytest.raises(ConfigurationError, match="repeat: expected at least 1"):
            make_env("PointGoal1-state", repeat=0)


class TestFrontBack:
    @pytest.fixture(scope="class")
    def env(self) -> Iterator[FrontBackEnv]:
        env = make_env("PointGoal1-vision")
        assert isinstance(env, FrontBackEnv)
        yield env
        env.close()

    @staticmethod
    def goal(picture: np.ndarray) -> int:
        """Pixels of the goal's green."""
        red, green, blue = (picture[..., channel].astype(int) for channel in range(3))
        return int(((green > red + 15) & (green > blue + 15)).sum())

    def test_what_is_ahead_is_in_the_first_picture_and_what_is_behind_in_the_second(self, env: FrontBackEnv) -> None:
        seen: set[bool] = set()
        for seed in range(12):
            if seen == {True, False}:
                break
            observation, _ = env.reset(seed)
            task = env.simulation.task
            offset = task.goal.pos[:2] - task.agent.pos[:2]
            ahead = float(offset @ task.agent.mat[:2, 0]) / float(np.linalg.norm(offset))
            if abs(ahead) > 0.85:
                front, back = self.goal(observation["image"]), self.goal(observation["image_back"])
                assert (front > back) == (ahead > 0)
                assert max(front, back) > 0
                seen.add(ahead > 0)
        assert seen == {True, False}

    def test_pictures_are_of_the_last_repeat(self, env: FrontBackEnv) -> None:
        before, _ = env.reset(0)
        after = env.step(np.array([1.0, 1.0], np.float32))[0]
        again = env._observation(None)
        for name in ("image", "image_back"):
            assert after[name].shape == (64, 64, 3) and after[name].dtype == np.uint8
            np.testing.assert_array_equal(after[name], again[name])
            assert (after[name] != before[name]).any()

    def test_each_episode_has_its_own_world(self, env: FrontBackEnv) -> None:
        first = env.reset(0)[0]
        other = env.reset(1)[0]
        assert (first["image"] != other["image"]).any()
        np.testing.assert_array_equal(env.reset(0)[0]["image"], first["image"])


def test_race_runs_without_the_textures_that_are_missing() -> None:
    env = make_env("Race2-vision")
    observation, _ = env.reset(0)
    assert observation["image"].std() > 5
    reward = sum(env.step(np.array([1.0, 0.0], np.float32))[1] for _ in range(3))
    assert reward != 0
    env.close()


def test_tasks_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"FadingEasy1.*Race2 with -vision or -state"):
        make_env("PointGoal1")
