"""The safety gate's decisions, one by one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.safety.gate import GateState
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.motion import MotionIntegrator
from tests.core.gate_rig import CENTRE, NOMINAL, PARAMETERS, Rig, pose_at, twist

RIGHT = twist(0.1)
STILL = np.zeros(6)
RAMPS = 2 * 0.1**2 / (2 * PARAMETERS["max_translation_acceleration"])
"""[m] What two changes of 0.1 m/s lose or gain while the target changes its speed."""


# Configuration

@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_limit_is_required(name: str) -> None:
    values = {key: value for key, value in PARAMETERS.items() if key != name}
    with pytest.raises(ConfigurationError, match=f"{name} missing") as caught:
        GateConfig.from_mapping(values)
    assert "\n" not in str(caught.value)


def test_unknown_and_senseless_parameters_are_named() -> None:
    with pytest.raises(ConfigurationError, match="unknown workspace_top"):
        GateConfig.from_mapping(PARAMETERS | {"workspace_top": 1.0})
    for bad in (0.0, -1.0, float("nan"), float("inf"), "0.1", True):
        with pytest.raises(ConfigurationError, match="command_timeout: expected a positive number"):
            GateConfig.from_mapping(PARAMETERS | {"command_timeout": bad})
    with pytest.raises(ConfigurationError, match="frame"):
        GateConfig.from_mapping(PARAMETERS | {"frame": ""})


# Arming

def test_nothing_moves_before_arming() -> None:
    rig = Rig()
    rig.tick(50, policy=RIGHT, teleop=RIGHT)
    assert rig.decision.state == GateState.DISARMED
    assert rig.decision.target is None
    assert rig.gate.counts["rejected.policy.not_armed"] == 50
    assert rig.gate.accepted == 0


def test_arming_starts_where_the_arm_is_and_holds() -> None:
    rig = Rig()
    rig.measured = pose_at(0.45, 0.05, 0.03)
    rig.armed()
    rig.tick(20)
    assert rig.decision.state == GateState.HOLD
    assert rig.decision.target is not None
    np.testing.assert_allclose(rig.decision.target.position, [0.45, 0.05, 0.03], atol=1e-9)


def test_arming_an_armed_gate_changes_nothing() -> None:
    rig = Rig().armed()
    assert rig.arm() == (True, "already armed")
    assert rig.gate.epoch == 1


def test_arming_needs_a_fresh_pose() -> None:
    rig = Rig()
    rig.measured = None
    rig.tick(5)
    ok, message = rig.arm()
    assert not ok and "stale_state" in message and "so far" in message
    rig.measured = CENTRE
    rig.tick(2)
    rig.now += 0.11
    ok, message = rig.arm()
    assert not ok and "0.11 s" in message


@pytest.mark.parametrize(("pose", "reason"), [
    (pose_at(x=0.70), "measured_workspace"), (pose_at(z=0.055), "measured_workspace"),
    (pose_at(rotation=(0.6, 0, 0)), "measured_tilt")])
def test_arming_is_refused_outside_the_limits(pose, reason: str) -> None:
    rig = Rig()
    rig.measured = pose
    rig.tick(3)
    ok, message = rig.arm()
    assert not ok and reason in message and "\n" not in message


def test_arming_is_refused_while_somebody_already_asks_for_motion() -> None:
    rig = Rig()
    rig.tick(10, policy=RIGHT)
    ok, message = rig.arm()
    assert not ok and "moving_command: policy" in message
    rig.tick(15)
    assert rig.arm()[0]


def test_arming_is_refused_with_two_publishers() -> None:
    rig = Rig()
    rig.tick(3)
    rig.gate.publishers.counted("/teleop/delta_twist_cmds", 2)
    ok, message = rig.arm()
    assert not ok and "/teleop/delta_twist_cmds has 2" in message
    rig.gate.publishers.counted("/teleop/delta_twist_cmds", 1)
    assert rig.arm()[0]


# Motion

def test_a_command_moves_the_target_at_its_speed() -> None:
    rig = Rig().armed()
    rig.tick(10, policy=RIGHT)
    assert rig.decision.state == GateState.ACTIVE
    assert rig.decision.source == "policy"
    lost = 0.1**2 / (2 * PARAMETERS["max_translation_acceleration"])  # while the target gathers speed
    np.testing.assert_allclose(rig.gate.target.position, [0.51 - lost, 0, 0.036], atol=6e-4)
    assert rig.gate.accepted == 10


def test_tells_the_stamp_of_the_newest_command_that_counts() -> None:
    rig = Rig().armed()
    assert rig.gate.newest_stamp == 0
    rig.tick(5)
    rig.send(RIGHT, age=0.02)
    rig.send(RIGHT, "teleop", age=0.01)
    rig.send(RIGHT, age=0.015)  # newer than the policy's last, older than the operator's
    assert rig.gate.newest_stamp == rig.clock - 0.01
    rig.send(RIGHT, age=0.0, frame="elsewhere")  # refused
    assert rig.gate.newest_stamp == rig.clock - 0.01


def test_the_gate_moves_as_the_direct_environment_does() -> None:
    """A policy meets the same motion in both, but for the acceleration, which the direct one does not limit."""
    rng = np.random.default_rng(0)
    rig = Rig(max_translation_acceleration=1e6, max_rotation_acceleration=1e6).armed()
    direct = MotionIntegrator(rig.gate._config.limits)
    direct.reset(CENTRE)
    scale = np.array([0.15] * 3 + [0.5] * 3)
    for _ in range(40):
        action = rng.uniform(-1, 1, 6) * scale
        for _ in range(10):
            measured = rig.measured
            rig.tick(policy=action)
            direct.advance(action, 0.01, measured)
        # Along the edge of the tilt cone one glides and the other is put back: a few milliradians.
        np.testing.assert_allclose(rig.gate.target.to_vector(NOMINAL), direct.target_vector, atol=5e-3)
    assert rig.gate.armed


def test_limits_are_reported_once_and_counted() -> None:
    rig = Rig().armed()
    rig.tick(5, policy=twist(5.0))
    assert rig.gate.take_limits() == ["translation_speed"]
    assert rig.gate.take_limits() == []
    assert rig.gate.counts["limited.translation_speed"] == 5
    assert 0.5 + 0.26 * 0.03 < rig.gate.target.position[0] <= 0.5 + 0.26 * 0.05


def test_the_target_stops_at_the_wall() -> None:
    rig = Rig().armed()
    rig.tick(100, policy=twist(0.26, 0.0, 0.1))
    np.testing.assert_allclose(rig.gate.target.position, [0.625, 0, 0.044], atol=1e-9)
    assert "workspace" in rig.gate.take_limits()
    assert rig.decision.state == GateState.ACTIVE


def test_a_late_tick_loses_motion_instead_of_jumping() -> None:
    rig = Rig().armed()
    rig.tick(5, policy=RIGHT)
    before = rig.gate.target.position[0]
    rig.now += 0.08
    rig.measure()
    rig.talk()
    rig.gate.tick(rig.now)
    assert rig.gate.target.position[0] - before == pytest.approx(0.1 * 0.02)


def test_a_measured_pose_thrown_about_does_not_throw_the_target() -> None:
    rig = Rig(max_measured_speed=5.0).armed()
    rig.follows = False
    rig.measured = pose_at(0.5)
    rig.tick(3)
    for x in (0.525, 0.55, 0.575, 0.60):  # 2.5 cm a sample: not yet a jump, but faster than the arm may move
        before = rig.gate.target.position[0]
        rig.measured = pose_at(x)
        rig.tick()
        assert rig.gate.target.position[0] - before <= 0.26 * 0.01 + 1e-9
    assert rig.decision.state == GateState.HOLD
    assert "translation_lead" in rig.gate.take_limits()


# Sources

def test_the_operator_outranks_the_policy_until_half_a_second_after_the_last_motion() -> None:
    rig = Rig().armed()
    rig.tick(10, policy=RIGHT)
    start = rig.gate.target.position
    rig.tick(10, policy=RIGHT, teleop=twist(0, 0.1))
    assert rig.decision.source == "teleop"
    np.testing.assert_allclose(rig.gate.target.position - start, [0, 0.01, 0], atol=RAMPS)
    rig.tick(49, policy=RIGHT, teleop=STILL)
    assert rig.decision.state == GateState.HOLD and rig.decision.source == "teleop"
    np.testing.assert_allclose(rig.gate.target.position - start, [0, 0.01, 0], atol=RAMPS)
    rig.tick(2, policy=RIGHT, teleop=STILL)
    assert rig.decision.source == "policy" and rig.decision.state == GateState.ACTIVE
    assert rig.gate.counts["outranked.policy"] == 58, "all but the first, which came before the operator did"


def test_a_device_at_rest_does_not_keep_the_policy_out() -> None:
    rig = Rig().armed()
    rig.tick(10, teleop=STILL, policy=RIGHT)
    assert rig.decision.source == "policy"
    assert rig.gate.target.position[0] == pytest.approx(0.51, abs=RAMPS)


def test_handover_has_no_jump() -> None:
    rig = Rig().armed()
    before = rig.gate.target.position
    for k in range(300):
        streams = {"policy": twist(0.2)} | ({"teleop": twist(-0.2)} if (k // 30) % 2 else {"teleop": STILL})
        target = rig.tick(**streams).target.position
        assert np.linalg.norm(target - before) <= 0.26 * 0.01 + 1e-9
        before = target
    assert rig.gate.armed


def test_a_policy_that_falls_silent_while_outranked_is_not_resumed_nor_a_fault() -> None:
    rig = Rig().armed()
    rig.tick(5, policy=RIGHT)
    rig.tick(40, teleop=twist(0, 0.1))
    rig.tick(5, teleop=STILL)
    rig.tick(60)
    assert rig.decision.state == GateState.HOLD
    assert rig.decision.source == ""


# Stale commands

@pytest.mark.parametrize("source", ["policy", "teleop"])
def test_silence_while_moving_is_a_latched_fault_after_150_ms(source: str) -> None:
    rig = Rig().armed()
    rig.tick(10, **{source: RIGHT})
    silent_since = rig.now
    while rig.tick().state == GateState.ACTIVE:
        assert rig.now < silent_since + 0.2
    assert rig.now - silent_since == pytest.approx(0.15, abs=0.0101)
    assert rig.decision.reason == "stale_command"
    rig.tick(50, **{source: RIGHT})
    assert rig.decision.state == GateState.FAULT
    assert rig.gate.counts["fault.stale_command"] == 1


@pytest.mark.parametrize("source", ["policy", "teleop"])
@pytest.mark.parametrize("late", [0, 3, 4])
def test_a_late_sender_moves_the_arm_later_and_not_further(source: str, late: int) -> None:
    rig = Rig().armed()
    start = rig.gate.target.position[1]
    for _ in range(6):
        rig.send(twist(0.0, 0.15), source)
        rig.tick(10 + late)
    assert rig.decision.state == GateState.ACTIVE
    # 6 periods of 0.1 s; each brake and start takes what the acceleration lets it.
    assert rig.gate.target.position[1] - start == pytest.approx(6 * 0.015, abs=0.002)
    assert (rig.gate.counts["limited.command_span"] > 0) == bool(late)


def test_an_early_sender_ends_what_came_before_it() -> None:
    rig = Rig().armed()
    start = rig.gate.target.position[1]
    for _ in range(6):
        rig.send(twist(0.0, 0.15))
        rig.tick(5)
    assert rig.gate.target.position[1] - start == pytest.approx(6 * 0.0075, abs=0.002)


def test_silence_is_a_fault_even_when_the_next_command_comes_before_the_next_tick() -> None:
    rig = Rig().armed()
    rig.tick(10, policy=RIGHT)
    rig.now += 0.16
    assert rig.send(RIGHT) == "not_armed"
    assert rig.gate.reason == "stale_command"


def test_zero_then_silence_holds() -> None:
    rig = Rig().armed()
    rig.tick(10, policy=RIGHT)
    rig.tick(1, policy=STILL)
    where = rig.gate.target.position
    rig.tick(100)
    assert rig.decision.state == GateState.HOLD
    np.testing.assert_array_equal(rig.gate.target.position, where)


def test_a_fault_ramps_to_rest_and_the_target_stays() -> None:
    rig = Rig().armed()
    rig.tick(20, policy=twist(0.2))
    rig.gate.stop(rig.now)
    steps, before = [], rig.gate.target.position[0]
    for _ in range(40):
        x = rig.tick().target.position[0]
        steps.append(x - before)
        before = x
    moving = [s for s in steps if s > 1e-12]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(moving)), "the ramp only slows down"
    assert 5 <= len(moving) <= 11
    assert sum(moving) == pytest.approx(0.2 * 0.1 / 2, abs=0.004), "v * t / 2"
    assert steps[15:] == [0.0] * 25


def test_the_ramp_starts_from_the_limited_velocity() -> None:
    rig = Rig().armed()
    rig.tick(5, policy=twist(50.0))
    rig.gate.stop(rig.now)
    start = rig.gate.target.position[0]
    rig.tick(30)
    assert rig.gate.target.position[0] - start < 0.26 * 0.1 / 2 + 0.002


# Commands that may not pass

@pytest.mark.parametrize(("value", "changes", "why"), [
    (np.full(6, np.nan), {}, "non_finite"), (np.array([0, 0, np.inf, 0, 0, 0]), {}, "non_finite"),
    (twist(0, 1e300), {}, "out_of_range"),
    (np.zeros(5), {}, "wrong_shape"), (np.zeros((6, 1)), {}, "wrong_shape"), ("go", {}, "wrong_shape"),
    (None, {}, "wrong_shape"), (RIGHT, {"frame": "fr3_hand"}, "wrong_frame"), (RIGHT, {"frame": ""}, "wrong_frame"),
    (RIGHT, {"stamp": 0.0}, "zero_stamp"), (RIGHT, {"stamp": float("nan")}, "zero_stamp"),
    (RIGHT, {"age": -0.2}, "future_stamp"), (RIGHT, {"age": 0.6}, "old_stamp")])
@pytest.mark.parametrize("source", ["policy", "teleop"])
def test_bad_commands_fault_and_bar_arming_while_they_last(value, changes, why: str, source: str) -> None:
    rig = Rig().armed()
    rig.tick(100)
    before = rig.gate.target.position
    assert rig.send(value, source, **changes) == why
    assert rig.tick().state == GateState.FAULT
    assert rig.decision.reason == why
    np.testing.assert_array_equal(rig.gate.target.position, before)
    assert rig.gate.rejected == 1 and rig.gate.counts[f"rejected.{source}.{why}"] == 1
    rig.tick(15)
    rig.send(value, source, **changes)
    rig.tick(20)
    ok, message = rig.arm()
    assert not ok and f"{why} from {source}" in message
    rig.tick(15)
    assert rig.arm()[0]


def test_bad_commands_before_arming_are_counted_and_bar_arming() -> None:
    rig = Rig()
    rig.tick(3)
    rig.send(np.full(6, np.nan))
    assert rig.gate.state == GateState.DISARMED
    assert not rig.arm()[0]


def test_commands_of_before_the_arming_never_replay() -> None:
    rig = Rig()
    rig.tick(100)
    old = rig.clock - 0.3
    rig.armed()
    assert rig.send(RIGHT, stamp=old) == "in_flight"
    assert rig.tick().state == GateState.HOLD, "one that was on its way is only dropped"
    rig.tick(20)
    assert rig.send(RIGHT, stamp=rig.clock - 0.4) == "old_stamp"
    assert rig.gate.state == GateState.FAULT
    np.testing.assert_array_equal(rig.gate.target.position, CENTRE.position)


def test_a_repeated_command_does_not_feed_the_watchdog() -> None:
    rig = Rig().armed()
    rig.tick(2)
    stamp = rig.clock
    assert rig.send(RIGHT, stamp=stamp) == ""
    for _ in range(16):
        rig.tick()
        rig.send(RIGHT, stamp=stamp)
    assert rig.decision.reason == "stale_command"
    assert rig.gate.counts["rejected.policy.out_of_order"] > 5


def test_an_unknown_source_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="source"):
        Rig().armed().send(RIGHT, "somebody")


def test_a_second_publisher_is_a_fault() -> None:
    rig = Rig().armed()
    rig.tick(5, policy=RIGHT)
    rig.gate.publishers.counted("/policy/delta_twist_cmds", 1)
    assert rig.gate.armed
    rig.gate.publishers.counted("/policy/delta_twist_cmds", 2)
    assert rig.tick().reason == "two_publishers"


# The measured pose

def test_a_silent_arm_is_a_fault_after_100_ms() -> None:
    rig = Rig().armed()
    rig.tick(10, policy=RIGHT)
    silent_since, rig.measured = rig.now, None
    while rig.tick(policy=RIGHT).state == GateState.ACTIVE:
        assert rig.now < silent_since + 0.15
    assert rig.now - silent_since == pytest.approx(0.1, abs=0.0101)
    assert rig.decision.reason == "stale_state"


def test_a_gap_is_a_fault_even_when_the_next_pose_comes_before_the_next_tick() -> None:
    rig = Rig().armed()
    rig.tick(5)
    rig.now += 0.3
    rig.measure()
    assert rig.gate.tick(rig.now).reason == "stale_state"


def test_a_frozen_arm_state_looks_silent() -> None:
    rig = Rig().armed()
    stamp = rig.clock
    rig.measured = None
    for _ in range(12):
        rig.tick()
        rig.measure(CENTRE, stamp=stamp)
    assert rig.gate.reason == "stale_state"


@pytest.mark.parametrize(("pose", "why"), [
    (pose_at(x=0.66), "measured_workspace"), (pose_at(rotation=(0, 0.55, 0)), "measured_tilt")])
def test_leaving_the_limits_by_more_than_the_margin_is_a_fault(pose, why: str) -> None:
    rig = Rig(max_measured_jump=1.0, max_measured_turn=3.0).armed()
    rig.measured = pose
    rig.follows = False
    rig.tick()
    assert rig.decision.state == GateState.FAULT and rig.decision.reason == why
    rig.tick(100)
    ok, message = rig.arm()
    assert not ok and why in message
    assert rig.decision.target is None, "the target is withdrawn, and the arm's own watchdog stops it"


def test_inside_the_margin_is_not_a_fault() -> None:
    rig = Rig().armed()
    rig.follows = False
    rig.measured = pose_at(z=0.044 + 0.019)
    rig.tick()
    assert rig.decision.state == GateState.HOLD


def test_a_jump_of_the_measured_pose_is_a_fault() -> None:
    for pose in (pose_at(0.5, 0.05), pose_at(rotation=(0, 0, 0.32))):
        rig = Rig().armed()
        rig.follows = False
        rig.measured = pose
        rig.tick()
        assert rig.decision.reason == "measured_jump"


@pytest.mark.parametrize("frame", ["", "world"])
def test_a_pose_in_another_frame_is_a_fault(frame: str) -> None:
    rig = Rig().armed()
    rig.now += 0.01
    assert rig.measure(frame=frame) == "measured_wrong_frame"
    assert rig.gate.tick(rig.now).reason == "measured_wrong_frame"


def test_an_unreadable_pose_is_a_fault() -> None:
    rig = Rig().armed()
    assert rig.gate.measurement(None, "fr3_link0", rig.clock, rig.now) == "measured_invalid"
    assert rig.gate.tick(rig.now).reason == "measured_invalid"


# After a fault

def test_the_first_fault_stays_the_reason() -> None:
    rig = Rig().armed()
    rig.tick(3)
    rig.send(np.full(6, np.nan))
    rig.measured = None
    rig.tick(30)
    assert rig.decision.reason == "non_finite"
    ok, message = rig.arm()
    assert not ok and "stale_state" in message, "what bars arming is what lasts now"


def test_rearming_goes_on_from_the_held_target_without_a_jump() -> None:
    rig = Rig().armed()
    rig.tick(20, policy=RIGHT)
    rig.follows = False
    lagging = rig.gate.target
    rig.tick(5, policy=RIGHT)  # the arm now lags behind the target
    rig.gate.stop(rig.now)
    rig.tick(30)
    held = rig.gate.target.position
    assert np.linalg.norm(held - lagging.position) > 1e-3
    assert rig.arm()[0]
    np.testing.assert_allclose(rig.tick().target.position, held, atol=1e-9)
    assert rig.gate.epoch == 2


def test_rearming_after_the_arm_was_moved_starts_where_it_is_now() -> None:
    rig = Rig().armed()
    rig.gate.stop(rig.now)
    rig.follows = False
    rig.tick(30)
    for x in np.linspace(0.5, 0.6, 20):
        rig.measured = pose_at(float(x))
        rig.tick()
    assert rig.arm()[0]
    np.testing.assert_allclose(rig.tick().target.position, [0.6, 0, 0.036], atol=1e-9)


def test_arming_waits_for_the_ramp() -> None:
    rig = Rig().armed()
    rig.gate.stop(rig.now)
    assert "still stopping" in rig.arm()[1]
    rig.tick(12)
    assert rig.arm()[0]


def test_stop_latches_and_is_harmless_when_disarmed() -> None:
    rig = Rig()
    rig.gate.stop(rig.now)
    assert rig.gate.state == GateState.DISARMED
    rig.armed()
    rig.tick(10, policy=RIGHT)
    rig.gate.stop(rig.now)
    rig.tick(30, policy=RIGHT)
    assert (rig.decision.state, rig.decision.reason) == (GateState.FAULT, "operator_stop")


def test_a_hung_gate_process_wakes_into_a_fault() -> None:
    rig = Rig().armed()
    rig.tick(10, policy=RIGHT)
    before = rig.gate.target.position[0]
    rig.now += 3.0
    decision = rig.gate.tick(rig.now)
    assert decision.state == GateState.FAULT
    rig.tick(50)
    assert rig.gate.target.position[0] == before, "the arm came to rest meanwhile, and stays so"
