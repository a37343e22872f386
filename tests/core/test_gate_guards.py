"""The gate's guards: what makes the arm stop although its commands are in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.safety.gate import GateState
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.guards.supervisor import Phase
from tests.core.gate_rig import PARAMETERS, Rig, pose_at, twist

FORWARD = twist(0.0, 0.05)
STILL = np.zeros(6)


def moving(source: str = "policy", **changes: Any) -> Rig:
    rig = Rig(**changes).armed()
    rig.gate.supervisor.announced(Phase.RUNNING)
    rig.tick(10, **{source: FORWARD})
    assert rig.decision.state == GateState.ACTIVE
    return rig


def until_fault(rig: Rig, source: str = "policy", value: np.ndarray = FORWARD) -> float:
    """Seconds until FAULT while `source` goes on."""
    began = rig.now
    while rig.tick(**{source: value}).state != GateState.FAULT:
        assert rig.now < began + 1.0, "no fault within a second"
    return rig.now - began


# Silence of what the policy needs

@pytest.mark.parametrize(("neighbour", "reason", "hold", "hold_after"), [
    ("camera", "camera_silent", "camera_silent", 0.12), ("runner", "supervisor_lost", "supervisor_late", 0.15),
    ("monitor", "monitor_stale", "monitor_late", 0.2)])
def test_a_policy_is_held_and_then_stopped_when_a_neighbour_falls_silent(neighbour: str, reason: str, hold: str,
                                                                         hold_after: float) -> None:
    rig = moving()
    rig.talking.remove(neighbour)
    silent = rig.now
    while not rig.tick(policy=FORWARD).hold and rig.decision.state != GateState.FAULT:
        assert rig.now < silent + 0.3
    assert rig.now - silent == pytest.approx(hold_after, abs=0.0101)
    if rig.decision.state != GateState.FAULT:
        assert rig.decision.hold == hold
        until_fault(rig)
    assert rig.now - silent == pytest.approx(0.2, abs=0.0101)
    assert rig.decision.reason == reason and rig.gate.counts[f"fault.{reason}"] == 1


def test_a_held_policy_is_at_rest_before_the_fault_and_goes_on_when_the_camera_does() -> None:
    rig = moving()
    rig.talking.remove("camera")
    rig.tick(16, policy=FORWARD)
    rest = rig.gate.target.position
    rig.tick(2, policy=FORWARD)
    np.testing.assert_array_equal(rig.gate.target.position, rest)
    assert rig.decision.state == GateState.HOLD and rig.decision.hold == "camera_silent"
    rig.talking.add("camera")
    rig.tick(10, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE and rig.gate.target.position[1] > rest[1]


def test_silence_is_seen_although_the_next_message_comes_before_the_next_tick() -> None:
    rig = moving()
    rig.now += 0.25
    rig.measure()
    rig.talk()
    rig.gate._arbiter.put("policy", FORWARD, rig.now)
    assert rig.gate.tick(rig.now).state == GateState.FAULT


def test_teleoperation_needs_neither_camera_nor_monitor() -> None:
    rig = moving("teleop")
    rig.talking -= {"camera", "monitor"}
    rig.tick(60, teleop=FORWARD)
    assert rig.decision.state == GateState.ACTIVE


def test_an_episode_without_its_runner_stops_the_operator_too_and_the_next_arming_ends_it() -> None:
    rig = moving("teleop")
    rig.talking.remove("runner")
    assert until_fault(rig, "teleop") == pytest.approx(0.2, abs=0.0101)
    assert rig.decision.reason == "supervisor_lost"
    rig.tick(20)
    assert rig.arm()[0]
    rig.tick(60, teleop=FORWARD)
    assert rig.decision.state == GateState.ACTIVE, "free teleoperation has no runner"


def test_the_way_home_needs_no_monitor_but_a_camera() -> None:
    rig = Rig().armed()
    rig.gate.supervisor.announced(Phase.RESETTING)
    rig.talking -= {"runner", "monitor"}
    rig.tick(60, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE
    rig.talking.remove("camera")
    until_fault(rig)
    assert rig.decision.reason == "camera_silent"


@pytest.mark.parametrize("phase", [0, 3, 17])
def test_a_policy_outside_an_episode_is_watched_as_inside(phase: int) -> None:
    rig = Rig()
    rig.talking.remove("monitor")
    rig.armed().gate.supervisor.announced(phase)
    until_fault(rig)
    assert rig.decision.reason == "monitor_stale"
    assert rig.gate.target.position[1] == 0, "held until it would have spoken"


def test_a_policy_that_stops_because_it_sees_nothing_is_a_fault_all_the_same() -> None:
    rig = moving()
    rig.talking.remove("camera")
    rig.tick(10, policy=FORWARD)
    rig.tick(11, policy=STILL)
    assert (rig.decision.state, rig.decision.reason) == (GateState.FAULT, "camera_silent")


def test_a_policy_at_rest_needs_nobody() -> None:
    rig = moving()
    rig.tick(35, policy=STILL)
    rig.talking = {"clock", "wrench"}
    rig.tick(100, policy=STILL)
    assert rig.decision.state == GateState.HOLD


# Frozen frames

@pytest.mark.parametrize("how", ["said", "sequence", "stamp"])
def test_a_frozen_camera_is_a_fault(how: str) -> None:
    rig = moving()
    rig.talking.remove("camera")
    stamp, frozen = rig.clock, rig.now
    while rig.tick(policy=FORWARD).state != GateState.FAULT:
        rig.frames += 1
        rig.gate.camera.frame(stamp if how == "stamp" else rig.clock, rig.frames if how != "sequence" else 5,
                              how == "said", rig.now)
        assert rig.now < frozen + 0.5
    assert rig.decision.reason == "camera_frozen"
    assert rig.now - frozen == pytest.approx(0.2, abs=0.0101)
    assert rig.gate.camera.repeated >= 10


def test_one_repeated_frame_is_counted_and_no_fault() -> None:
    rig = moving()
    rig.gate.camera.frame(rig.clock, rig.frames, True, rig.now)
    rig.tick(30, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE and rig.gate.camera.repeated == 1


def test_a_restarted_camera_may_count_anew() -> None:
    rig = Rig().armed()
    rig.talking.remove("camera")
    rig.tick(50)
    rig.frames = 0
    rig.talking.add("camera")
    rig.tick(10, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE


# Force

def test_motion_against_a_soft_force_fades_and_away_from_it_stays_free() -> None:
    rig = moving("teleop")
    rig.wrench = np.array([0, -22.5, 0, 0, 0, 0.0])  # halfway between soft and hard; the tool presses along +y
    rig.tick(5, teleop=FORWARD)
    assert rig.gate.velocity[1] == pytest.approx(0.025, abs=1e-6)
    assert "force" in rig.gate.take_limits()
    rig.tick(5, teleop=twist(0.0, -0.05))
    assert rig.gate.velocity[1] == pytest.approx(-0.05)
    rig.wrench = np.array([0, 0, 0, 0, 0, -8.5])
    rig.tick(5, teleop=twist(angular=(0, 0, 0.4)))
    assert rig.gate.velocity[5] == pytest.approx(0.2, abs=1e-6)
    assert "torque" in rig.gate.take_limits()


@pytest.mark.parametrize(("wrench", "reason"), [
    ((31, 0, 0, 0, 0, 0), "force"), ((0, 0, 0, 0, 12.5, 0), "torque"), ((np.nan, 0, 0, 0, 0, 0), "wrench_invalid")])
def test_a_hard_force_latches_and_the_target_is_withdrawn(wrench: tuple[float, ...], reason: str) -> None:
    rig = moving()
    rig.gate.force.measured(np.array(wrench, float), rig.now)  # one sample; the next is harmless again
    assert rig.tick(policy=FORWARD).reason == reason
    rig.tick(20)
    assert rig.decision.target is None and rig.decision.state == GateState.FAULT
    if reason != "wrench_invalid":
        rig.wrench = np.array(wrench, float)
        rig.tick(2)
        ok, message = rig.arm()
        assert not ok and "free the arm" in message
    rig.wrench = np.zeros(6)
    rig.tick(2)
    assert rig.arm()[0]


def test_a_silent_wrench_is_a_fault_even_at_rest() -> None:
    rig = Rig().armed()
    rig.talking.remove("wrench")
    rig.tick(11)
    assert rig.decision.reason == "stale_wrench"
    ok, message = rig.arm()
    assert not ok and "stale_wrench" in message


@pytest.mark.parametrize("lost", ["arm", "wrench"])
def test_an_arm_that_is_lost_after_a_stop_finds_no_target_when_it_comes_back(lost: str) -> None:
    rig = moving()
    rig.gate.stop(rig.now)
    rig.tick(20)
    assert rig.decision.target is not None, "held"
    where = rig.measured
    if lost == "arm":
        rig.measured = None
    else:
        rig.talking.remove("wrench")
    rig.tick(13)
    assert rig.decision.target is None
    assert (rig.decision.state, rig.decision.reason) == (GateState.FAULT, "operator_stop")
    rig.measured = where
    rig.talking.add("wrench")
    rig.tick(30)
    assert rig.decision.target is None, "until it is armed again"
    assert rig.arm()[0] and rig.tick().target is not None


# The learned layer

@pytest.mark.parametrize(("probability", "cost", "hold"), [(0.95, 0.0, "veto_violation"), (0.1, 11.0, "veto_cost")])
def test_the_policys_own_estimates_hold_it_and_let_it_go(probability: float, cost: float, hold: str) -> None:
    rig = moving()
    rig.talking.remove("monitor")
    for _ in range(20):
        rig.gate.learned.estimate(probability, cost, rig.now)
        rig.tick(policy=FORWARD)
    assert rig.decision.hold == hold and rig.gate.counts[f"held.{hold}"] >= 19
    assert not rig.gate.velocity.any() and rig.decision.state == GateState.HOLD
    rig.talking.add("monitor")
    rig.tick(5, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE and not rig.decision.hold


def test_a_veto_does_not_bind_the_operator() -> None:
    rig = moving()
    rig.talking.remove("monitor")
    for _ in range(20):
        rig.gate.learned.estimate(1.0, 0.0, rig.now)
        rig.tick(policy=FORWARD, teleop=FORWARD)
    assert rig.decision.source == "teleop" and rig.decision.state == GateState.ACTIVE


@pytest.mark.parametrize(("probability", "cost"), [(np.nan, 0.0), (0.1, np.nan), (0.1, np.inf), (1.5, 0.0),
                                                   (-0.2, 0.0)])
def test_estimates_that_make_no_sense_are_a_fault(probability: float, cost: float) -> None:
    rig = moving()
    rig.gate.learned.estimate(probability, cost, rig.now)
    assert rig.tick(policy=FORWARD).reason == "monitor_invalid"
    rig.gate.learned.estimate(probability, cost, rig.now)
    assert "monitor_invalid" in rig.arm()[1]


def test_the_learned_layer_can_be_declared_absent_and_still_vetoes_when_it_speaks() -> None:
    rig = moving(learned_layer="absent")
    rig.talking.remove("monitor")
    rig.tick(60, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE
    rig.gate.learned.estimate(0.99, 0.0, rig.now)
    assert rig.tick(policy=FORWARD).hold == "veto_violation"


def test_estimates_never_make_the_gate_more_permissive() -> None:
    """The same commands with and without the best of estimates: the target never gets farther with them."""
    rng = np.random.default_rng(3)
    rigs = [Rig(learned_layer="absent").armed() for _ in range(2)]
    rigs[0].talking.remove("monitor")
    for _ in range(50):
        command = rng.uniform(-1, 1, 6)
        for rig in rigs:
            rig.tick(3, policy=command)
        np.testing.assert_array_equal(rigs[0].gate.target.position, rigs[1].gate.target.position)


# The cost budget

def test_a_spent_budget_refuses_the_policy_until_a_person_resets_it() -> None:
    rig = moving()
    gate = rig.gate
    for _ in range(2):
        gate.cost.label("contact_sensor", 1.0)
        gate.cost.label("contact_sensor", 1.0)  # a level that goes on is one violation
        gate.cost.label("contact_sensor", 0.0)
    rig.tick(2, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE and gate.cost.spent == 2
    gate.cost.label("reviewer", 1.0)
    assert rig.tick(policy=FORWARD).hold == "cost_budget"
    rest = rig.tick(10, policy=FORWARD).target.position
    rig.tick(30, policy=FORWARD)
    assert rig.decision.state == GateState.HOLD and rig.decision.hold == "cost_budget"
    np.testing.assert_array_equal(gate.target.position, rest)
    assert gate.counts["rejected.policy.cost_budget"] >= 40
    rig.tick(20, teleop=FORWARD)
    assert rig.decision.state == GateState.ACTIVE, "teleoperation goes on"
    assert "3 of 3" in gate.cost.reset()
    rig.tick(60, teleop=STILL)
    rig.tick(10, policy=FORWARD)
    assert rig.decision.source == "policy" and rig.decision.state == GateState.ACTIVE


def test_arming_forgives_no_cost_and_the_way_home_stays_open() -> None:
    rig = Rig().armed()
    rig.gate.cost.label("contact_sensor", float("nan"))  # what is no number counts as a violation
    rig.gate.cost.label("reviewer", 2.0)
    rig.gate.stop(rig.now)
    rig.tick(20)
    assert rig.arm()[0] and rig.gate.cost.exhausted
    rig.gate.supervisor.announced(Phase.RESETTING)
    rig.tick(10, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE
    rig.gate.supervisor.announced(Phase.RUNNING)
    rig.tick(5, policy=FORWARD)
    assert rig.decision.hold == "cost_budget"


# Who speaks, and the clock

def test_a_message_of_a_second_sender_is_a_fault_at_once() -> None:
    rig = moving()
    rig.gate.publishers.sent("/policy/delta_twist_cmds", "a", rig.now)
    rig.tick(3, policy=FORWARD)
    rig.gate.publishers.sent("/policy/delta_twist_cmds", "b", rig.now)
    assert rig.tick(policy=FORWARD).reason == "two_publishers"
    assert "/policy/delta_twist_cmds" in rig.gate.detail


def test_a_sender_may_be_replaced_after_a_pause() -> None:
    rig = Rig().armed()
    rig.gate.publishers.sent("/policy/delta_twist_cmds", "a", rig.now)
    rig.tick(110)
    rig.gate.publishers.sent("/policy/delta_twist_cmds", "b", rig.now)
    rig.tick(10, policy=FORWARD)
    assert rig.decision.state == GateState.ACTIVE


@pytest.mark.parametrize("step", [10.0, -10.0, 0.06])
def test_a_step_of_the_clock_is_a_fault(step: float) -> None:
    rig = moving()
    rig.talking.remove("clock")
    rig.gate.clock.told(rig.now, rig.clock + step)
    rig.send(FORWARD, age=1.0)  # one that the step makes look old
    assert rig.tick(policy=FORWARD).reason == "clock_step"
    assert f"{step:+.2f}" in rig.gate.detail


def test_after_a_step_back_an_old_command_is_not_new_again() -> None:
    rig = moving()
    stamp = rig.clock - 0.05
    rig.gate.stop(rig.now)
    rig.tick(50)
    ok, _ = rig.gate.arm(rig.now, stamp - 1.0)  # the clock went back behind the command
    assert ok
    refused = [rig.gate.command("policy", _command(FORWARD, stamp), rig.now + t, stamp - 1.0 + t)
               for t in (0.98, 1.0, 1.2)]
    assert refused == ["out_of_order"] * 3


def _command(value: np.ndarray, stamp: float) -> Any:
    from safe_policy_core.safety.commands import Command
    return Command(value, "fr3_link0", stamp)


# The measured pose

def test_an_arm_in_a_keep_out_box_is_a_fault() -> None:
    rig = Rig(keep_out=(0.52, -0.02, 0.0, 0.56, 0.02, 0.1), max_measured_jump=1.0).armed()
    rig.follows = False
    rig.measured = pose_at(0.525)
    assert rig.tick().reason == "measured_keep_out"
    assert "measured_keep_out" in rig.arm()[1]
    rig.measured = pose_at(0.51)  # beside it, but nearer than the margin
    rig.tick(30)
    assert rig.decision.target is None
    assert "measured_keep_out" in rig.arm()[1]
    rig.measured = pose_at(0.49)
    rig.tick(2)
    assert rig.arm()[0]


@pytest.mark.parametrize("step", [lambda k: pose_at(0.4 + 0.0075 * k), lambda k: pose_at(rotation=(0, 0, 0.025 * k))])
def test_an_arm_that_is_too_fast_is_a_fault(step: Callable[[int], Any]) -> None:
    rig = Rig(max_tilt=1.0).armed()
    rig.follows = False
    rig.measured = step(0)
    rig.gate.stop(rig.now)
    rig.tick(30)
    assert rig.arm()[0]
    for k in range(13):
        rig.measured = step(k)
        rig.tick()
    assert rig.decision.reason == "measured_speed"


# Configuration

@pytest.mark.parametrize(("changes", "message"), [
    ({"camera_hold": 0.3}, "camera_hold: expected less than camera_timeout"),
    ({"soft_force": 30.0}, "soft_force: expected less than hard_force"),
    ({"keep_out": (0, 0, 0, 1, 1)}, "keep_out: expected six finite numbers"),
    ({"keep_out": (0, 0, 0, 1, 0, 1)}, "keep_out: expected low < high"),
    ({"learned_layer": "maybe"}, "learned_layer: expected required or absent"),
    ({"max_translation_acceleration": 2.0}, "max_translation_acceleration: expected at least 2.6"),
    ({"max_rotation_acceleration": 8.0}, "does not come to rest within stop_time"),
    ({"cost_budget": float("nan")}, "cost_budget: expected a positive number")])
def test_senseless_limits_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GateConfig.from_mapping(PARAMETERS | changes)
