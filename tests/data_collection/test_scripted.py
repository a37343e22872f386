"""The scripted operator reaches its goal like a person: never twice the same way, always the same for a seed."""

import numpy as np

from data_collection.devices.scripted import OperatorConfig, ScriptedOperator

GOAL = np.array([0.55, 0.05, 0.04, 0, 0, 0])
PERIOD = 0.04
SPEED = np.array([0.15] * 3 + [0.5] * 3)


def towards_goal(pose):
    return np.clip((GOAL - pose) / 0.01, -1, 1)


def drive(seed, config=None, seconds=4.0):
    """Positions (N, 6) and commands (N, 6) of an arm that follows without lag."""
    operator = ScriptedOperator(config)
    operator.start(towards_goal, seed)
    pose, poses, twists = np.array([0.5, -0.1, 0.04, 0, 0, 0]), [], []
    for k in range(int(seconds / PERIOD)):
        operator.observe(pose, k * PERIOD)
        twists.append(operator.read(k * PERIOD).twist)
        pose = pose + twists[-1] * SPEED * PERIOD
        poses.append(pose)
    return np.array(poses), np.array(twists)


def test_reaches_the_goal_and_stays():
    for seed in range(10):
        poses, twists = drive(seed)
        assert np.linalg.norm(poses[-25:, :3] - GOAL[:3], axis=1).max() < 0.005, seed  # m
        assert np.abs(twists).max() <= 1


def test_a_seed_fixes_the_commands_and_another_changes_them():
    np.testing.assert_array_equal(drive(3)[1], drive(3)[1])
    assert np.abs(drive(3)[0] - drive(4)[0]).max() > 0.003  # m


def test_noise_comes_from_the_configuration():
    still = OperatorConfig(slowest=0.8, fastest=0.8, translation_noise=0, rotation_noise=0)
    np.testing.assert_array_equal(drive(1, still)[1], drive(2, still)[1])


def test_at_rest_before_the_start_after_the_stop_and_without_a_recent_pose():
    operator = ScriptedOperator()
    assert not operator.read(0.0).moving
    operator.observe(np.zeros(6), 0.0)
    assert not operator.read(0.0).moving
    operator.start(towards_goal, 0)
    operator.read(0.0)
    assert operator.read(0.04).moving
    assert not operator.read(0.5).moving, "a pose of half a second ago is too old to act on"
    operator.observe(np.zeros(6), 0.5)
    operator.read(0.5)
    assert operator.read(0.54).moving
    operator.stop()
    assert not operator.read(0.58).moving
