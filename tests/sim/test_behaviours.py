"""FOSP's three behaviours in its simulation tasks, and the episode files that they fill."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_policy_core.data.episodes import EpisodeStore, content_hash, read_episode
from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.evaluation import rollout
from safe_policy_core.interfaces import RobotEnv
from sim.collectors import episodes
from sim.collectors.behaviours import controller_of
from sim.collectors.episodes import Demonstrator
from sim.collectors.obstacles import AGENT, BOX, CircularObstacles, Planner, direction_to
from sim.commands import Collect
from sim.experiments.safety_gymnasium_figures import distribution, returns_and_costs

DECISIONS = 10


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of ten decisions."""
    def make(name: str, **options: Any) -> RobotEnv:
        env = make_env(name, **options)
        env.simulation.task.num_steps = 4 * DECISIONS  # type: ignore[attr-defined]
        return env

    monkeypatch.setattr(episodes, "make_env", make)


def drive(task: str, behaviour: str, seed: int) -> tuple[float, float]:
    """Return and cost of one whole episode."""
    env = make_env(f"{task}-state")
    try:
        result = rollout(env, Demonstrator(env, task, behaviour), seed)  # type: ignore[arg-type]
    finally:
        env.close()
    return result.reward, result.cost


def test_safe_and_unsafe_both_earn_and_only_one_pays() -> None:
    safe, unsafe = drive("PointGoal1", "safe", 1_000_001), drive("PointGoal1", "unsafe", 1_000_001)
    assert safe[0] > 5 and unsafe[0] > 5
    assert safe[1] <= 5 < 20 < unsafe[1]


def test_the_safe_racer_knows_where_the_walls_are() -> None:
    """Its track is narrower than it looks: the walls are their meshes' convex hulls."""
    seeds = range(1_000_000, 1_000_004)
    safe, unsafe = ([drive("Race2", behaviour, seed) for seed in seeds] for behaviour in ("safe", "unsafe"))
    assert 2 * sum(cost for _, cost in safe) < sum(cost for _, cost in unsafe)
    assert min(reward for reward, _ in safe) > 2


def test_pushing_brings_the_box_to_the_goal() -> None:
    assert drive("PointPush1", "unsafe", 1_000_001)[0] > 3


class TestWay:
    def test_straight_without_obstacles_and_around_one(self) -> None:
        target, here, still = np.array([1.0, 0.0]), np.zeros(2), np.zeros(2)
        centre, radius = np.array([[0.4, 0.05]]), np.array([0.2])
        assert direction_to(target, here, still, centre, radius, 0.0, 0.1) == pytest.approx([1, 0])
        aside = direction_to(target, here, still, centre, radius, 4.0, 0.1)
        path = np.linspace(0.1, 0.6, 20)[:, None] * aside
        assert np.linalg.norm(path - centre, axis=1).min() > 0.2
        assert aside[0] > 0

    def test_the_planner_leaves_a_pocket(self) -> None:
        """A ring that is open behind: straight on there is no way, and the local rule alone stays in it."""
        angles = np.linspace(-2.2, 2.2, 12)
        centres, radii = 0.8 * np.stack([np.cos(angles), np.sin(angles)], -1), np.full(12, 0.2)
        target, planner = np.array([2.0, 0.0]), Planner()
        position = np.zeros(2)
        for _ in range(200):
            position = planner.waypoint(target, position, centres, radii, 0.05)
            assert np.linalg.norm(position - centres, axis=1).min() > 0.2
            if np.array_equal(position, target):
                break
        assert np.array_equal(position, target)
        # Straight at it the way would have been 2 m; a target that moves is followed.
        assert planner.waypoint(np.array([-2.0, 0.0]), np.zeros(2), centres, radii, 0.05)[0] < 0

    def test_obstacles_of_a_task_are_what_costs(self) -> None:
        env = make_env("PointButton1-state")
        env.reset(0)
        task = env.simulation.task  # type: ignore[attr-defined]
        centres, radii = CircularObstacles(task).around()
        env.close()
        # 4 hazards, 4 gremlins, and the 3 buttons that are not the goal.
        assert Counter(np.round(radii, 3)) == {0.2: 4, round(0.1 * BOX + AGENT, 3): 4, 0.25: 3}
        assert np.linalg.norm(centres - task.goal.pos[:2], axis=1).min() > 0.05


class TestCollection:
    def test_files_in_turns_that_pretrain_reads(self, short: None, tmp_path: Path) -> None:
        result = Collect("PointGoal1-state", tmp_path, episodes=4, seed=3).run()
        assert result["behaviors"] == {"random": 2, "safe": 1, "unsafe": 1}
        assert result["steps_recorded"] == 4 * DECISIONS
        store = EpisodeStore(tmp_path)
        assert len(store) == 4 and store.rows == 4 * (DECISIONS + 1)
        assert store.specs.observation["vector"].shape == (60,)
        metadata = read_episode(Path(result["episodes"][1])).metadata
        assert (metadata["task"], metadata["behavior"], metadata["action_repeat"]) == ("PointGoal1-state", "safe", 4)
        assert metadata["style"]["caution"] > 0

        found = returns_and_costs(tmp_path)
        assert sorted(found) == ["random", "safe", "unsafe"]
        assert found["random"][0] == pytest.approx([store.summaries[0].total_reward, store.summaries[3].total_reward])
        assert distribution(tmp_path / "data.png", {"PointGoal1": tmp_path}).stat().st_size > 1000

    def test_goes_on_and_records_the_same_again(self, short: None, tmp_path: Path) -> None:
        command = Collect("PointGoal1-state", tmp_path, episodes=2)
        first = [Path(path) for path in command.run()["episodes"]]
        before = content_hash(read_episode(first[1]))
        kept = first[0].stat().st_mtime_ns
        first[1].unlink()
        assert command.run()["recorded"] == 1
        assert content_hash(read_episode(first[1])) == before
        assert first[0].stat().st_mtime_ns == kept
        assert command.run()["recorded"] == 0

    def test_one_behaviour_alone(self, short: None, tmp_path: Path) -> None:
        result = Collect("PointGoal1-state", tmp_path, episodes=2, behavior="unsafe").run()
        assert result["behaviors"] == {"unsafe": 2}

    def test_wrong_use_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="PointGoal1-state has no 'safe_reach'"):
            Collect("PointGoal1-state", tmp_path, behavior="safe_reach").run()
        with pytest.raises(ConfigurationError, match="original has no 'unsafe'"):
            Collect("original", tmp_path, behavior="unsafe").run()
        with pytest.raises(ConfigurationError, match="task: unknown 'PointGoal1'"):
            Collect("PointGoal1", tmp_path).run()
        with pytest.raises(ConfigurationError, match="behavior: unknown 'bold'"):
            controller_of("PointGoal1", "bold")
