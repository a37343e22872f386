import dataclasses
import json
from pathlib import Path

import mujoco
import numpy as np
import pytest

from safe_policy_core.data.dsrl import read_dsrl
from safe_policy_core.environments import make_env
from safe_policy_core.errors import UserError
from sim.collectors.collect import collect
from sim.collectors.controller import ActionNoise
from sim.collectors.evolution import Evolution
from sim.collectors.field import Orbiting, Seeking, Sensors, steer
from sim.collectors.gait import NOISE, Gait, LinearPolicy, read_gaits, write_gaits
from sim.collectors.standing import Balance
from sim.collectors.tasks import TASKS, find_task
from sim.commands import Collect
from sim.safety_gymnasium import SafetyGymnasiumEnv

SEARCHED = [name for name, task in TASKS.items() if task.controller == "gait:Gait" and not task.for_falls]
"""Whose demonstrators are linear policies of more or less reward and cost."""


@pytest.mark.parametrize("name", SEARCHED)
def test_shipped_policies_cover_reward_and_cost(name: str) -> None:
    task = find_task(name)
    policies = read_gaits(task.env_id.replace("Gymnasium-", "-"))
    cheapest, best = min(policies, key=lambda one: one.cost), max(policies, key=lambda one: one.reward)
    assert best.cost > 4 * task.target_cost
    assert cheapest.cost < best.cost / 2
    assert cheapest.reward < best.reward


@pytest.mark.parametrize("name", [name for name in SEARCHED if "Velocity" in name])
def test_shipped_gaits_differ_among_the_safe(name: str) -> None:
    """Else cloning the safe is all that can be learned from them."""
    task = find_task(name)
    policies = read_gaits(task.env_id.replace("Gymnasium-", "-"))
    safe = [policy.reward for policy in policies if policy.cost <= task.target_cost]
    assert len(safe) > 2
    assert max(safe) > 0.2 * max(policy.reward for policy in policies)
    assert max(safe) > 1.3 * min(safe)


def test_what_was_recorded_with_a_policy_is_what_it_does() -> None:
    env = find_task("SwimmerVelocity").make_env()
    policy = read_gaits(env.env_id)[0]
    observation, _ = env.reset(0)
    total = 0.0
    for _ in range(1000):
        observation, reward, *_ = env.step(policy.action(observation["vector"]).astype(np.float32))
        total += reward
    env.close()
    assert total == pytest.approx(policy.reward, rel=0.2)


def test_the_humanoid_stands_by_its_first_gait_and_falls_without() -> None:
    env = find_task("HumanoidVelocity").make_env()
    lasted = []
    for policy in (read_gaits(env.env_id)[0].action, lambda _: np.zeros(17)):
        (observation, _), terminated, steps = env.reset(0), False, 0
        while not terminated and steps < 300:
            observation, _, _, terminated, *_ = env.step(policy(observation["vector"]).astype(np.float32))
            steps += 1
        lasted.append(steps)
    env.close()
    assert lasted[0] == 300
    assert lasted[1] < 100


def test_balance_is_at_rest_and_its_regulator_steadies_what_would_fall() -> None:
    env = SafetyGymnasiumEnv(find_task("HumanoidVelocity").env_id)
    balance = Balance(env.simulation.model, -0.02, env.simulation.frame_skip)
    policy, shipped = balance.policy(1000.0), read_gaits(env.env_id)[4]
    env.close()
    weight = balance.model.body_mass.sum() * 9.81
    assert np.abs(balance._forces(balance.pose)[[0, 2, 4]]).max() < 0.01 * weight
    # The action for a deviation, as the policy gives it, and what that makes of the deviation.
    speeds, states = balance.model.nv, 2 * balance.model.nv - 2
    reply = np.zeros((17, states))
    for index in range(states):
        deviation = np.zeros(2 * speeds)
        deviation[index + 2] = 1e-4
        pose = balance.pose.copy()
        mujoco.mj_integratePos(balance.model, pose, deviation[:speeds], 1)
        seen = np.concatenate([pose[2:], deviation[speeds:]])
        reply[:, index] = (policy.weights[:, :-1] @ (seen - policy.mean)) / 1e-4
    steadied = np.abs(np.linalg.eigvals(balance.change + balance.effect @ reply)).max()
    assert steadied < 1 < np.abs(np.linalg.eigvals(balance.change)).max()
    np.testing.assert_allclose(policy.weights, shipped.weights, rtol=0.05, atol=0.05)


def test_gaits_of_other_bodies_stay_in_the_file(tmp_path: Path) -> None:
    gait = LinearPolicy(np.array([[1.0, -2.0, 0.05]]), np.zeros(2), np.ones(2), penalty=0.5)
    write_gaits(tmp_path / "gaits.json", "a", [gait])
    write_gaits(tmp_path / "gaits.json", "b", [gait, gait])
    content = json.loads((tmp_path / "gaits.json").read_text())
    assert [len(content[name]) for name in "ab"] == [1, 2]
    again = LinearPolicy.from_json(content["a"][0])
    np.testing.assert_allclose(again.action(np.array([0.3, 0.2])), [-0.05])
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


def test_sensors_show_where_the_body_is() -> None:
    for name in ("PointCircle1", "CarCircle1"):
        env = find_task(name).make_env()
        assert isinstance(env, SafetyGymnasiumEnv)
        sensors = Sensors(env)
        for seed in range(5):
            observation, _ = env.reset(seed)
            agent = env.simulation.task.agent
            position, axes = sensors.place(observation["vector"])
            # 16 beams see a direction to within a few degrees.
            np.testing.assert_allclose(position, agent.pos[:2], atol=0.08)
            np.testing.assert_allclose(axes, agent.mat[:2, :2], atol=0.02)
        env.close()


def test_steering_turns_towards_what_is_wanted() -> None:
    left, right = np.array([1.0, 0.2]), np.array([1.0, -0.2])
    assert steer("Point", left, 0.3, 0.0)[1] > 0 > steer("Point", right, 0.3, 0.0)[1]
    # The Car's front is its negative y axis, its left the positive x axis: the left wheel's torque comes first.
    wheels = steer("Car", np.array([0.2, -1.0]), 0.0, 0.0)
    assert wheels[0] == -wheels[1] > 0
    assert abs(steer("Car", np.array([0.2, -1.0]), 0.0, 1.0)[0]) < wheels[0]


@pytest.mark.parametrize(("task", "kind", "careful", "careless"), [
    ("PointGoal1", Seeking, {"caution": 1.0, "reach": 0.6}, {"caution": -0.3, "reach": 0.6}),
    ("CarCircle1", Orbiting, {"width": 0.7, "length": 1.4}, {"width": 1.4, "length": 1.5}),
])
def test_care_is_what_keeps_from_cost(task: str, kind: type, careful: dict[str, float], careless: dict[str, float]
                                      ) -> None:
    env = find_task(task).make_env()
    found = []
    for style in (careful, careless):
        reward = cost = 0.0
        for seed in range(3):
            observation, _ = env.reset(seed)
            driver = kind(env, np.random.default_rng(0))
            driver.style |= style | {"speed": 0.7, "noise": 0.0}
            driver._noise = ActionNoise(2, 0.0, np.random.default_rng(0))
            for _ in range(400):
                observation, gained, paid, *_ = env.step(driver.action(observation))
                reward, cost = reward + gained, cost + paid
        found.append((reward, cost))
    env.close()
    (reward, cost), (_, dear) = found
    assert cost <= 5 < 20 < dear
    assert reward > 0


@pytest.mark.parametrize(("task", "kind", "own"), [
    ("PointCircle1", Gait, "gain"), ("PointGoal1", Seeking, "caution"), ("CarCircle1", Orbiting, "width")])
def test_styles_differ_from_one_to_the_next(task: str, kind: type, own: str) -> None:
    env = find_task(task).make_env()
    drivers = [kind(env, np.random.default_rng(i)) for i in range(30)]
    assert np.std([driver.style[own] for driver in drivers]) > 0.1
    assert {driver.style["noise"] for driver in drivers} == set(NOISE)
    assert kind is not Gait or len({driver.style["gait"] for driver in drivers}) > 1
    # Noise does not foretell itself: what imitates could else do best by repeating its last action, which a gyroscope
    # tells it.
    noise = next(driver._noise for driver in drivers if driver.style["noise"])
    drawn = np.array([noise.disturb(np.zeros(env.specs.action.shape))[0] for _ in range(2000)])
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


def test_a_penalised_search_goes_on_to_survive(tmp_path: Path) -> None:
    out = tmp_path / "gaits.json"
    small = Evolution("HopperVelocity", iterations=4, penalties=(2.0,), directions=2, best=1, out=out)
    found = small.run()
    # Three snapshots without a penalty, and the penalised before and after its second half.
    assert [gait.penalty for gait in found] == [0, 0, 0, 2, 2]
    assert not np.array_equal(found[3].weights, found[4].weights)
    written = json.loads(out.read_text())["SafetyHopperVelocity-v1"]
    np.testing.assert_allclose([gait["weights"] for gait in written], [gait.weights for gait in found], atol=1e-5)
    # Where survival is not taken off there is one stage, and the seed fixes it.
    again = [dataclasses.replace(small, survival=0.0, out=tmp_path / f"{run}.json").run() for run in "ab"]
    assert [gait.penalty for gait in again[0]] == [0, 0, 0, 2]
    for one, other in zip(*again, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)


def test_each_speed_is_searched_from_the_one_before(tmp_path: Path) -> None:
    small = Evolution("SwimmerVelocity", iterations=4, penalties=(), speeds=(0.2, 0.1), directions=2, best=1,
                      out=tmp_path / "gaits.json")
    found = small.run()
    assert len(found) == 3 + 2
    # Two iterations, each of one step from what was there before.
    from_fastest = np.abs(found[3].weights - found[2].weights).max()
    still = dataclasses.replace(small, from_still=True).run()
    assert np.abs(still[3].weights).max() < 10 * small.step
    assert from_fastest > 0 and np.array_equal(still[2].weights, found[2].weights)
    with pytest.raises(UserError, match="speeds: PointCircle1 has none to hold"):
        dataclasses.replace(small, task="PointCircle1").run()


def test_a_search_goes_on_from_the_fastest_gait_that_was_there(tmp_path: Path) -> None:
    out, env_id = tmp_path / "gaits.json", "SafetySwimmerVelocity-v1"
    before = read_gaits(env_id)
    fastest = max(before, key=lambda gait: gait.reward)
    write_gaits(out, env_id, before)
    search = Evolution("SwimmerVelocity", iterations=2, snapshots=(), penalties=(), speeds=(0.2,), directions=2, best=1,
                       add=True, out=out)
    *kept, found = search.run()
    assert len(kept) == len(before)
    # One step from it, in its own units: a policy is its weights on what was standardised by its statistics.
    np.testing.assert_allclose(found.mean, fastest.mean, atol=0.1)
    np.testing.assert_allclose(found.deviation, fastest.deviation, rtol=0.1)
    assert np.abs(found.weights - fastest.weights).max() < 10 * search.step < np.abs(fastest.weights).max()


def test_what_is_faster_than_the_speed_to_hold_counts_less(tmp_path: Path) -> None:
    env = find_task("SwimmerVelocity").make_env()
    policy = max(read_gaits(env.env_id), key=lambda one: one.reward)
    search = Evolution("SwimmerVelocity", iterations=0, penalties=(), excess=2.0, out=tmp_path / "gaits.json")
    search.run()
    search._env, search._horizon = env, 50
    observation, _ = env.reset(3)
    vector, expected = observation["vector"], 0.0
    for _ in range(50):
        vector, reward, *_, info = env.simulation.step(policy.action(vector))
        expected += reward - 2 * max(info["x_velocity"] - 0.15, 0)
    score, _, _ = search._run(policy, 3, speed=0.15)
    plain, _, _ = search._run(policy, 3)
    env.close()
    assert score == pytest.approx(expected)
    assert score < plain - 1
