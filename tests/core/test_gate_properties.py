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
    st.tuples(st.just("nudge"), near), st.tuples(st.just("throw"), poses),
    st.tuples(st.just("wait"), st.floats(0.05, 1.0)), st.tuples(st.just("arm"), st.none()),
    st.tuples(st.just("stop"), st.none()), st.tuples(st.just("publishers"), st.integers(0, 2)))


def angle_between(a: Pose, b: Pose) -> float:
    return float(np.linalg.norm(rotation_vector_from_quaternion(multiply(a.quaternion, inverse(b.quaternion)))))


def outside(pose: Pose) -> float:
    return float(np.linalg.norm(np.maximum(np.maximum(LOW - pose.position, pose.position - HIGH), 0)))


def apply(rig: Rig, kind: str, value: Any) -> None:
    if kind == "tick":
        rig.now += value
        if rig.measured is not None:
            rig.measure()
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
        rig.gate.publishers("/policy/delta_twist_cmds", value, rig.now)


@settings(max_examples=250, deadline=None)
@given(st.lists(events, min_size=10, max_size=120))
def test_the_target_stays_in_the_box_and_under_the_speed_limit(sequence: list[tuple[str, Any]]) -> None:
    rig = Rig().armed()
    before, then, epoch = rig.gate.tick(rig.now).target, rig.now, rig.gate.epoch
    for kind, value in sequence:
        apply(rig, kind, value)
        decision = rig.gate.tick(rig.now)
        if decision.state == GateState.DISARMED:
            assert decision.target is None
        target = decision.target
        if target is not None and before is not None and rig.gate.epoch == epoch:
            dt = rig.now - then
            step = float(np.linalg.norm(target.position - before.position))
            assert step <= SPEED * min(dt, 0.02) + 1e-9
            assert angle_between(target, before) <= TURN * min(dt, 0.02) + 1e-7
            assert outside(target) <= max(outside(before), 1e-9)
            old, new = (float(np.linalg.norm(p.to_vector(NOMINAL)[3:])) for p in (before, target))
            assert new <= max(TILT, old) + 1e-9
        if target is not None:
            assert outside(target) <= PARAMETERS["arming_margin"] + 1e-9
        before, then, epoch = target, rig.now, rig.gate.epoch


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
