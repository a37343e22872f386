"""The pure parts of the ROS environment: deadlines, homing, and the executed action."""

import numpy as np
import pytest

from safe_policy_core.safety.motion import CONTROL_PERIOD
from sim.safe_reach.task import SPECS

pytestmark = pytest.mark.ros

from safe_policy_ros.executed import TargetTrack, action_scale  # noqa: E402
from safe_policy_ros.homing import Homing  # noqa: E402
from safe_policy_ros.pacer import Pacer  # noqa: E402

SCALE = action_scale(SPECS)


def test_deadlines_do_not_drift_when_steps_are_a_little_late():
    pacer = Pacer(0.1)
    late = np.random.default_rng(0).uniform(0, 0.04, 50)
    deadlines, now = [], 10.0
    for delay in late:
        deadlines.append(pacer.next(now))
        now = deadlines[-1] + delay
    assert np.allclose(np.diff(deadlines), 0.1) and pacer.overruns == 0


def test_a_long_pause_moves_the_grid_and_is_counted():
    pacer = Pacer(0.1)
    first = pacer.next(10.0)
    deadline = pacer.next(first + 0.33)
    assert deadline - (first + 0.33) >= 0.05
    assert pacer.overruns == 3
    assert (deadline - first) / 0.1 == pytest.approx(round((deadline - first) / 0.1))


def gate_status(track, path, since, until, offset):
    """What the gate says 50 times a second in that time [s]; newer statuses are on their way still."""
    for time in np.arange(since, until, 0.02) + offset:
        track.append(1000 + time, path(time))


@pytest.mark.parametrize("offset", [0.0, 0.004, 0.011, 0.019])
def test_executed_action_is_that_of_the_command_whatever_the_phase_of_the_status(offset):
    first, second = np.array([0.8, -0.5, 0.2, 0.1, -0.9, 0.4]), np.array([0.3, 0.9, 0.2, -0.4, 0.0, 0.4])
    start = np.array([0.5, 0.0, 0.036, 0, 0, 0])

    def path(time):
        return start + (np.clip(time / 0.1, 0, 1) * first + np.clip(time / 0.1 - 1, 0, 1) * second) * SCALE

    track = TargetTrack()
    gate_status(track, path, -0.1, 0.0, 0.0)
    track.begin()
    gate_status(track, path, 0.0, 0.08, offset)
    assert np.allclose(track.executed_action(1000.0, SCALE), first, atol=0.02)
    gate_status(track, path, 0.08, 0.18, offset)
    assert np.allclose(track.executed_action(1000.1, SCALE), second, atol=0.02)


def test_executed_actions_add_up_to_the_targets_way_however_it_went():
    rng = np.random.default_rng(0)
    track, time, where = TargetTrack(), 1000.0, np.array([0.5, 0, 0.036, 0.01, 0, 0])
    track.append(time, where)
    track.begin()
    begin, total = where.copy(), np.zeros(6)
    for _ in range(30):
        sent, velocity = time, rng.uniform(-1, 1, 6) * SCALE / CONTROL_PERIOD
        for _ in range(rng.integers(3, 9)):  # from 0.06 to 0.16 s, and sometimes faster than an action says
            time += 0.02
            where = where + velocity * 0.02
            track.append(time, where)
        total += track.executed_action(sent, SCALE)
    for _ in range(5):
        time += 0.1
        track.append(time - 0.05, where)
        track.append(time, where)
        total += track.executed_action(time, SCALE)
    np.testing.assert_allclose(total * SCALE, where - begin, atol=1e-6)


def test_executed_action_of_a_held_target_is_zero():
    track = TargetTrack()
    assert np.array_equal(track.executed_action(0.1, SCALE), np.zeros(6, np.float32))
    for time in np.arange(0, 0.2, 0.02):
        track.append(time, np.array([0.5, 0, 0.036, 0.01, 0, 0]))
    track.begin()
    assert np.array_equal(track.executed_action(0.1, SCALE), np.zeros(6, np.float32))


def test_homing_converges_within_its_bounds():
    homing, command = Homing(), np.array([0.6, 0.1, 0.044, 0.2, -0.1, 0.1])
    start = np.array([0.5, -0.105, 0.036, 0.01, 0.0, 0.0])
    for _ in range(int(5 / 0.05)):
        twist = homing.twist(command, start)
        assert np.linalg.norm(twist[:3]) <= homing.max_translation_speed * (1 + 1e-9)
        assert np.linalg.norm(twist[3:]) <= homing.max_rotation_speed * (1 + 1e-9)
        command = command + twist * 0.05
    assert homing.commanded(command, start)
    assert not homing.commanded(start + np.array([0.002, 0, 0, 0, 0, 0]), start)
