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


@pytest.mark.parametrize("offset", [0.0, 0.004, 0.011, 0.019])
def test_executed_action_is_that_of_the_command_whatever_the_phase_of_the_status(offset):
    action = np.array([0.8, -0.5, 0.2, 0.1, -0.9, 0.4])
    track, start = TargetTrack(), np.array([0.5, 0.0, 0.036, 0, 0, 0])
    for time in np.arange(-0.1, 0.1, 0.02) + offset:
        track.append(1000 + time, start + max(0.0, time) / CONTROL_PERIOD * action * SCALE)
    assert np.allclose(track.executed_action(1000.0, SCALE), action, atol=0.1)


def test_executed_action_of_a_held_target_is_zero():
    track = TargetTrack()
    for time in np.arange(0, 0.2, 0.02):
        track.append(time, np.array([0.5, 0, 0.036, 0.01, 0, 0]))
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
