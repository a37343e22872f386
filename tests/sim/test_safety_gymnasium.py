import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv
from sim.safety_gymnasium import SafetyGymnasiumEnv
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
