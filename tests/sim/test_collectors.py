from pathlib import Path

import numpy as np
import pytest

from safe_policy_core.data.dsrl import read_dsrl
from safe_policy_core.environments import make_env
from safe_policy_core.errors import UserError
from sim.collectors.collect import SEED_BASE, collect, trajectory
from sim.collectors.controller import ActionNoise
from sim.collectors.gait import LinearPolicy, read_gaits, write_gaits
from sim.collectors.navigation import CircleRunner, GoalSeeker
from sim.collectors.tasks import TASKS, find_task
from sim.commands import Collect


def drive(name: str, seed: int, **style: float) -> tuple[float, float]:
    """Return and cost of one episode of a demonstrator with this style."""
    task = find_task(name)
    env = task.make_env()
    observation, _ = env.reset(SEED_BASE + seed)
    controller = task.make_controller()(env, np.random.default_rng(seed))
    controller.style.update(style)
    run = trajectory(env, controller, observation["vector"])
    env.close()
    return float(run["rewards"].sum()), float(run["costs"].sum())


def test_caution_buys_safety_on_the_circle() -> None:
    safe = drive("PointCircle1", 0, wall=0.8, radius=1.4, speed=1.0)
    bold = drive("PointCircle1", 0, wall=2.0, radius=1.4, speed=1.2)
    slow = drive("CarCircle1", 0, wall=1.0, radius=1.4, speed=0.1)
    assert safe[1] == 0
    assert bold[1] > 50
    assert bold[0] > safe[0] > 15
    assert safe[0] > slow[0] > 0


def test_goal_seekers_reach_goals_and_the_careful_avoid_hazards() -> None:
    careful = drive("PointGoal1", 1, speed=0.6, caution=3.0, margin=0.1)
    reckless = drive("PointGoal1", 1, speed=0.6, caution=0.0)
    assert careful[0] > 5
    assert reckless[0] > 5
    assert careful[1] < reckless[1]


def test_shipped_gaits_cover_slow_and_fast() -> None:
    for name in ("HopperVelocity", "SwimmerVelocity"):
        gaits = read_gaits(find_task(name).env_id.replace("Gymnasium-", "-"))
        costs = [gait.cost for gait in gaits]
        assert 2 * min(costs) < max(costs) > 250
    # What was recorded with a policy is what it does.
    policy, env = gaits[-1], make_env("SafetySwimmerVelocity-v1")
    observation, _ = env.reset(1)
    total = 0.0
    for _ in range(1000):
        observation, reward, *_ = env.step(policy.action(observation["vector"]).astype(np.float32))
        total += reward
    env.close()
    assert total == pytest.approx(policy.reward, rel=0.2)


def test_gaits_of_other_bodies_stay_in_the_file(tmp_path: Path) -> None:
    gait = LinearPolicy(np.array([[1.0, -2.0]]), np.zeros(2), np.ones(2), penalty=0.5)
    write_gaits(tmp_path / "gaits.json", "a", [gait])
    write_gaits(tmp_path / "gaits.json", "b", [gait, gait])
    import json
    content = json.loads((tmp_path / "gaits.json").read_text())
    assert [len(content[name]) for name in "ab"] == [1, 2]
    again = LinearPolicy.from_json(content["a"][0])
    np.testing.assert_allclose(again.action(np.array([0.3, 0.2])), [-0.1])
    np.testing.assert_allclose(again.action(np.array([3.0, 0.2])), [1.0])


def test_a_dataset_is_fixed_by_its_seed_and_smaller_ones_are_its_beginning(tmp_path: Path) -> None:
    task = TASKS["SafeReach"]
    large = collect(task, 3, 5, tmp_path / "large.hdf5", "a command")
    small = collect(task, 2, 5, tmp_path / "small.hdf5")
    assert large.data_hash() == read_dsrl(tmp_path / "large.hdf5").data_hash()
    rows = small.rows
    np.testing.assert_array_equal(large.observations[:rows], small.observations)
    np.testing.assert_array_equal(large.actions[:rows], small.actions)
    read = read_dsrl(tmp_path / "large.hdf5")
    assert read.metadata["command"] == "a command"
    assert len(read.metadata["styles"]) == len(read) == 3
    assert read.specs.difference(make_env(task.env_id).specs) is None
    assert (read.lengths <= task.horizon).all()
    # Reward counts time: 1 at the target less 1 / 80 a step.
    reached = read.terminals[read.starts[1:] - 1]
    np.testing.assert_allclose(read.returns, reached - read.lengths / 80, atol=1e-5)


def test_noise_stays_in_bounds_and_has_its_scale() -> None:
    noise = ActionNoise(2, 0.2, np.random.default_rng(0))
    drawn = np.array([noise.disturb(np.zeros(2)) for _ in range(4000)])
    assert drawn.std() == pytest.approx(0.2, rel=0.15)
    assert np.abs([noise.disturb(np.ones(2)) for _ in range(50)]).max() <= 1


def test_styles_differ_from_one_to_the_next() -> None:
    env = make_env("SafetyPointGoal1-v0")
    env.reset(0)
    styles = [GoalSeeker(env, np.random.default_rng(i)).style for i in range(30)]  # type: ignore[arg-type]
    assert 0 < sum(style["caution"] == 0 for style in styles) < 30
    assert np.std([style["speed"] for style in styles]) > 0.2
    assert {name for style in [CircleRunner(env, np.random.default_rng(0)).style] for name in style} == {  # type: ignore[arg-type]
        "wall", "radius", "speed", "noise"}
    env.close()


def test_the_noise_of_drivers_does_not_foretell_itself() -> None:
    """What imitates them could else do best by repeating its last action, which their own gyroscope tells it."""
    env = make_env("SafetyPointGoal1-v0")
    env.reset(0)
    for driver in (GoalSeeker, CircleRunner):
        noise = driver(env, np.random.default_rng(0))._noise  # type: ignore[arg-type]
        drawn = np.array([noise.disturb(np.zeros(2))[0] for _ in range(2000)])
        assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.1
    env.close()


def test_wrong_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "there.hdf5").write_bytes(b"")
    cases = {
        "no demonstrators for 'Nope'.*PointGoal1": Collect("Nope", tmp_path / "x.hdf5", trajectories=3),
        "trajectories: expected 1": Collect("PointGoal1", tmp_path / "x.hdf5", trajectories=0),
        "seed": Collect("PointGoal1", tmp_path / "x.hdf5", trajectories=1, seed=-1),
        "exists": Collect("PointGoal1", tmp_path / "there.hdf5", trajectories=1),
    }
    for message, command in cases.items():
        with pytest.raises(UserError, match=message):
            command.run()


def test_collect_by_the_id_of_the_dataset(tmp_path: Path) -> None:
    result = Collect("original-state", tmp_path / "reach.hdf5", trajectories=2).run()
    assert result["task"] == "SafeReach"
    assert result["trajectories"] == len(read_dsrl(tmp_path / "reach.hdf5")) == 2
