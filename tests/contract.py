"""What every `RobotEnv` must do. Inherit, and provide the fixture `env`."""

from __future__ import annotations

import numpy as np
import pytest

from safe_policy_core.errors import SpecError
from safe_policy_core.interfaces import RobotEnv


class RobotEnvContract:
    """Subclass as `class TestX(RobotEnvContract)` with a fixture `env` that yields an open environment."""

    DETERMINISTIC = True
    """False where the world is not seeded to the bit (a real or real-time simulated arm)."""
    STEPS = 5

    @pytest.fixture
    def env(self) -> RobotEnv:
        raise NotImplementedError("the subclass provides the environment")

    @pytest.fixture
    def env_to_close(self, env: RobotEnv) -> RobotEnv:
        """Another one, where `env` is shared by the class's tests."""
        return env

    def action(self, env: RobotEnv, value: float = 0.3) -> np.ndarray:
        return np.full(env.specs.action.shape, value, np.float32)

    def test_observations_are_of_the_specs(self, env: RobotEnv) -> None:
        observation, info = env.reset(1)
        env.specs.validate_observation(observation)
        assert isinstance(info, dict)
        for _ in range(self.STEPS):
            observation, reward, cost, terminated, truncated, info = env.step(self.action(env))
            env.specs.validate_observation(observation)
            assert isinstance(reward, float)
            assert isinstance(cost, float)
            assert cost >= 0
            assert isinstance(terminated, bool)
            assert isinstance(truncated, bool)
            env.specs.action.validate(info["executed_action"])
            assert isinstance(info["filter_reason"], str)
            assert isinstance(info["success"], bool)
            assert isinstance(info["violation"], bool)
            if terminated or truncated:
                break

    def test_same_seed_same_episode(self, env: RobotEnv) -> None:
        if not self.DETERMINISTIC:
            first, _ = env.reset(7)
            again, _ = env.reset(7)
            assert first.keys() == again.keys()
            return
        runs = []
        for _ in range(2):
            observation, _ = env.reset(7)
            trace = [observation]
            rewards = []
            for _ in range(self.STEPS):
                observation, reward, cost, *_ = env.step(self.action(env))
                trace.append(observation)
                rewards.append((reward, cost))
            runs.append((trace, rewards))
        assert runs[0][1] == runs[1][1]
        for one, other in zip(runs[0][0], runs[1][0], strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])

    def test_other_seed_other_episode(self, env: RobotEnv) -> None:
        one, _ = env.reset(7)
        other, _ = env.reset(8)
        assert any(not np.array_equal(one[name], other[name]) for name in one)

    @pytest.mark.parametrize("bad", ["shape", "nan", "range", "dtype"])
    def test_bad_action_is_refused_and_the_episode_goes_on(self, env: RobotEnv, bad: str) -> None:
        env.reset(1)
        good = self.action(env)
        values = {"shape": np.zeros(len(good) + 1, np.float32), "nan": good * np.nan, "range": good * 0 + 1.5,
                  "dtype": good.astype(str)}
        with pytest.raises(SpecError, match="action"):
            env.step(values[bad])
        env.step(self.action(env))

    def test_step_before_reset_and_after_closing(self, env_to_close: RobotEnv) -> None:
        with pytest.raises(RuntimeError, match="reset"):
            env_to_close.step(self.action(env_to_close))
        env_to_close.close()
        env_to_close.close()

    def test_step_after_the_end(self, env: RobotEnv) -> None:
        env.reset(2)
        for _ in range(2000):
            *_, terminated, truncated, _ = env.step(self.action(env, 0.0))
            if terminated or truncated:
                break
        else:
            pytest.fail("the episode did not end in 2000 steps")
        with pytest.raises(RuntimeError, match="reset"):
            env.step(self.action(env))
