"""What holds for every sequence of commands, measurements and time steps."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_policy_core.geometry import Pose, inverse, multiply, rotation_vector_from_quaternion
from safe_policy_core.safety.gate import GateState
from tests.core.gate_rig import NOMINAL, PARAMETERS, Rig, pose_at, twist

LOW, HIGH = np.array(PARAMETERS["workspace_low"]), np.array(PARAMETERS["workspace_high"])
KEEP_OUT = (0.45, -0.03, 0.0, 0.47, 0.03, 0.1, 0.56, 0.06, 0.03, 0.7, 0.07, 0.032)
"""[m] Two boxes in the middle of the workspace: a wall, and a low beam that sticks out of it."""
FREE = [pose_at(x, y, z) for x in (0.39, 0.52, 0.61) for y in (-0.11, 0.0, 0.11) for z in (0.03, 0.042)]
ACCELERATION, TURNING = PARAMETERS["max_translation_acceleration"], PARAMETERS["max_rotation_acceleration"]
SPEED, TURN, TILT = (PARAMETERS[n] for n in ("max_translation_speed", "max_rotation_speed", "max_tilt"))

numbers = st.floats(-3, 3) | st.sampled_from([0.0, float("nan"), float("inf"), 1e300])
twists = st.lists(numbers, min_size=6, max_size=6).map(np.array) | st.just(np.zeros(6)) | st.just(np.zeros(5))
usual = st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6).map(np.array) | st.just(np.zeros(6))
poses = st.tuples(st.floats(0.3, 0.7), st.floats(-0.2, 0.2), st.floats(0.0, 0.1),
                  st.tuples(*[st.floats(-0.5, 0.5)] * 3)).map(lambda v: pose_at(*v))
near = st.tuples(*[st.floats(-0.02, 0.02)] * 3, st.tuples(*[st.floats(-0.1, 0.1)] * 3))
sources = st.sampled_from(["policy", "teleop"])
events = st.one_of(
    st.tuples(st.just("tick"), st.floats(0.0, 0.03)), st.tuples(st.just("tick"), st.just(0.01)),
    st.tuples(st.just("command"), st.tuples(sources, usual, st.just(0.0))),
    st.tuples(st.just("command"), st.tuples(sources, usual, st.just(0.0))),
    st.tuples(st.just("command"), st.tuples(sources, twists, st.floats(-0.1, 3.0))),
    st.tuples(st.just("frame"), st.tuples(st.floats(-1, 1), st.integers(-3, 3), st.booleans())),
    st.tuples(st.just("wrench"), st.lists(numbers.map(lambda v: 20 * v), min_size=6, max_size=6)),
    st.tuples(st.just("estimate"), st.tuples(numbers, numbers)), st.tuples(st.just("label"), numbers),
    st.tuples(st.just("phase"), st.integers(0, 4)), st.tuples(st.just("clock"), st.floats(-20, 20)),
    st.tuples(st.just("hush"), st.sampled_from(["wrench", "camera", "runner", "monitor"])),
    st.tuples(st.just("nudge"), near), st.tuples(st.just("throw"), poses),
    st.tuples(st.just("wait"), st.floats(0.05, 1.0)), st.tuples(st.just("arm"), st.none()),
    st.tuples(st.just("stop"), st.none()), st.tuples(st.just("publishers"), st.integers(0, 2)))


def outside(pose: Pose) -> float:
    return float(np.linalg.norm(np.maximum(np.maximum(LOW - pose.position, pose.position - HIGH), 0)))


def apply(rig: Rig, kind: str, value: Any) -> None:
    if kind == "tick":
        rig.now += value
        if rig.measured is not None:
            rig.measure()
        rig.talk()
    elif kind == "command":
        source, command, age = value
        rig.send(command, source, age=age)
    elif kind == "nudge" and rig.measured is not None:
        x, y, z, rotation = value
        vector = rig.measured.to_vector(NOMINAL) + np.array([x, y, z, *rotation])
        rig.measured = Pose.from_vector(vector, NOMINAL)
    elif kind == "throw":
        rig.measured = value
    elif kind == "wait":
        rig.now += value
    elif kind == "arm":
        rig.arm()
    elif kind == "stop":
        rig.gate.stop(rig.now)
    elif kind == "publishers":
        rig.gate.publishers.counted("/policy/delta_twist_cmds", value)
    elif kind == "frame":
        ahead, step, repeated = value
        rig.gate.camera.frame(rig.clock + ahead, rig.frames + step, repeated, rig.now)
    elif kind == "wrench":
        rig.gate.force.measured(np.array(value), rig.now)
    elif kind == "estimate":
        rig.gate.learned.estimate(*value, rig.now)
    elif kind == "label":
        rig.gate.cost.label("somebody", value)
    elif kind == "phase":
        rig.gate.supervisor.announced(value)
    elif kind == "clock":
        rig.gate.clock.told(rig.now, rig.clock + value)
    elif kind == "hush":
        rig.talking ^= {value}


def in_keep_out(pose: Pose) -> bool:
    corners = np.array(KEEP_OUT).reshape(-1, 2, 3)
    margin = PARAMETERS["keep_out_margin"] - 1e-9
    return bool(((pose.position > corners[:, 0] - margin) & (pose.position < corners[:, 1] + margin)).all(1).any())


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FREE), st.booleans(), st.lists(events, min_size=10, max_size=120))
def test_the_target_never_leaves_its_limits(start: Pose, follows: bool, sequence: list[tuple[str, Any]]) -> None:
    """Box, cone, keep-out boxes, speeds and accelerations, whatever is commanded, measured, said and withheld."""
    rig = Rig(keep_out=KEEP_OUT)
    rig.measured = start
    before, then, epoch = rig.armed().gate.tick(rig.now).target, rig.now, rig.gate.epoch
    velocity = np.zeros(6)
    for kind, value in sequence:
        apply(rig, kind, value)
        decision = rig.gate.tick(rig.now)
        if decision.state == GateState.DISARMED:
            assert decision.target is None
        target, dt = decision.target, min(rig.now - then, 0.02)
        if rig.now - then > PARAMETERS["state_timeout"]:
            velocity = np.zeros(6)  # a gate that hung so long goes on from rest
        if target is not None:
            assert np.isfinite(target.position).all() and abs(np.linalg.norm(target.quaternion) - 1) < 1e-9
            assert outside(target) <= PARAMETERS["arming_margin"] + 1e-9
            assert not in_keep_out(target)
        if target is not None and before is not None and rig.gate.epoch == epoch:
            step, turn = target.position - before.position, rotation_vector_from_quaternion(
                multiply(target.quaternion, inverse(before.quaternion)))
            assert np.linalg.norm(step) <= SPEED * dt + 1e-9
            assert np.linalg.norm(turn) <= TURN * dt + 1e-7
            assert outside(target) <= max(outside(before), 1e-9)
            old, new = (float(np.linalg.norm(p.to_vector(NOMINAL)[3:])) for p in (before, target))
            assert new <= max(TILT, old) + 1e-9
            if dt > 1e-4:  # under that, rounding of the positions is more than the change
                after = np.concatenate([step, turn]) / dt
                assert np.linalg.norm(after[:3] - velocity[:3]) <= ACCELERATION * dt + 1e-6
                assert np.linalg.norm(after[3:] - velocity[3:]) <= TURNING * dt + 1e-6
        if follows and target is not None:
            rig.measured = target
        before, then, epoch, velocity = target, rig.now, rig.gate.epoch, rig.gate.velocity


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FREE), st.lists(st.tuples(usual.map(lambda t: 3 * t), st.integers(1, 40)), min_size=5,
                                       max_size=20))
def test_a_policy_that_rushes_about_never_leaves_its_limits(start: Pose, legs: list[tuple[np.ndarray, int]]) -> None:
    """Long runs into walls and boxes, which random events seldom make."""
    rig = Rig(keep_out=KEEP_OUT)
    rig.measured = start
    velocity, position = np.zeros(6), rig.armed().gate.target.position
    for command, ticks in legs:
        for _ in range(ticks):
            target = rig.tick(policy=command).target
            assert outside(target) <= 1e-9 and not in_keep_out(target)
            assert np.linalg.norm(target.to_vector(NOMINAL)[3:]) <= TILT + 1e-9
            after = rig.gate.velocity
            np.testing.assert_allclose(after[:3] * 0.01, target.position - position, atol=1e-9)
            for part, speed, change in ((slice(0, 3), SPEED, ACCELERATION), (slice(3, 6), TURN, TURNING)):
                assert np.linalg.norm(after[part]) <= speed + 1e-9
                assert np.linalg.norm(after[part] - velocity[part]) <= change * 0.01 + 1e-9
            velocity, position = after.copy(), target.position
    assert rig.gate.armed


@settings(max_examples=150, deadline=None)
@given(st.lists(events.filter(lambda e: e[0] != "arm"), min_size=5, max_size=80))
def test_nothing_but_arming_leaves_disarmed_or_fault_and_nothing_moves_there(sequence: list[tuple[str, Any]]) -> None:
    disarmed, rig = Rig(), Rig().armed()
    for kind, value in sequence:
        apply(disarmed, kind, value)
        assert disarmed.gate.tick(disarmed.now).target is None
    assert disarmed.gate.state == GateState.DISARMED
    rig.tick(5, policy=twist(0.2))
    rig.gate.stop(rig.now)
    rig.tick(15)
    rest = rig.gate.target.position
    for kind, value in sequence:
        apply(rig, kind, value)
        decision = rig.gate.tick(rig.now)
        assert (decision.state, decision.reason) == (GateState.FAULT, "operator_stop")
        np.testing.assert_array_equal(rig.gate.target.position, rest)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(sources, usual, st.floats(0.0001, 2.0)), min_size=1, max_size=20))
def test_no_command_stamped_before_the_arming_moves_the_target(commands: list[tuple[str, np.ndarray, float]]) -> None:
    rig = Rig().armed()
    armed_clock, rest = rig.clock, rig.gate.target.position
    for source, value, age in commands:
        rig.send(value, source, stamp=armed_clock - age)
        rig.tick()
        np.testing.assert_allclose(rig.gate.target.position, rest, atol=1e-12)
    assert rig.gate.accepted == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(sources, twists, st.floats(-0.2, 1.0)), max_size=30))
def test_every_command_is_counted_once(commands: list[tuple[str, np.ndarray, float]]) -> None:
    rig = Rig().armed()
    for source, value, age in commands:
        rig.send(value, source, age=age)
        rig.tick()
    counts = rig.gate.counts
    assert rig.gate.accepted + rig.gate.rejected == len(commands)
    assert rig.gate.accepted == sum(n for key, n in counts.items() if key.startswith("accepted."))
    assert rig.gate.rejected == sum(n for key, n in counts.items() if key.startswith("rejected."))
