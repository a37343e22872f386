"""The gate's filters and envelope: how the target moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_policy_core.safety.envelope import Envelope
from safe_policy_core.safety.filters.workspace import enters
from safe_policy_core.safety.gate_config import GateConfig
from tests.core.gate_rig import NOMINAL, PARAMETERS, Rig, pose_at, twist

ACCELERATION, TURNING = PARAMETERS["max_translation_acceleration"], PARAMETERS["max_rotation_acceleration"]
BOX = (0.52, -0.02, 0.0, 0.56, 0.02, 0.1)
FACE = 0.5
"""[m] The near face of BOX, with its margin of 2 cm."""


def test_the_target_gathers_and_loses_speed_at_the_limit() -> None:
    rig = Rig().armed()
    speeds = []
    for command in [twist(0.26)] * 6 + [np.zeros(6)] * 6:
        rig.tick(policy=command)
        speeds.append(rig.gate.velocity[0])
    np.testing.assert_allclose(speeds[:6], np.minimum(0.08 * np.arange(1, 7), 0.26), atol=1e-9)
    np.testing.assert_allclose(speeds[6:], np.maximum(0.26 - 0.08 * np.arange(1, 7), 0), atol=1e-9)
    assert rig.gate.counts["limited.acceleration"] >= 4 and rig.gate.take_limits() == []


def test_a_reversal_is_a_ramp() -> None:
    rig = Rig().armed()
    rig.tick(20, policy=twist(0.2, angular=(0, 0, 0.5)))
    before = rig.gate.velocity
    for _ in range(10):
        after = (rig.tick(policy=twist(-0.2, angular=(0, 0, -0.5))), rig.gate.velocity)[1]
        assert np.linalg.norm(after[:3] - before[:3]) <= ACCELERATION * 0.01 + 1e-9
        assert np.linalg.norm(after[3:] - before[3:]) <= TURNING * 0.01 + 1e-9
        before = after
    np.testing.assert_allclose(before, twist(-0.2, angular=(0, 0, -0.5)), atol=1e-9)


def test_the_target_slows_down_before_the_wall_and_glides_along_it() -> None:
    rig = Rig()
    rig.measured = pose_at(0.6)
    rig.armed()
    speeds = []
    for _ in range(30):
        rig.tick(policy=twist(0.2, 0.1))
        speeds.append(rig.gate.velocity.copy())
    assert rig.gate.target.position[0] == pytest.approx(0.625, abs=1e-5)
    assert speeds[-1][1] == pytest.approx(0.1), "along the wall it goes on"
    assert np.all(np.diff([s[0] for s in speeds[5:]]) <= 1e-9)


def test_the_tilt_glides_along_its_cone() -> None:
    rig = Rig().armed()
    rig.tick(150, policy=twist(angular=(0.8, 0.3, 0)))
    tilt = rig.gate.target.to_vector(NOMINAL)[3:]
    assert 0.34 < np.linalg.norm(tilt) <= 0.35 + 1e-9
    rig.tick(100, policy=twist(angular=(-0.8, 0, 0)))
    assert np.linalg.norm(rig.gate.target.to_vector(NOMINAL)[3:]) <= 0.35 + 1e-9


def test_a_keep_out_box_stops_the_target_at_its_margin_and_lets_it_pass_beside() -> None:
    rig = Rig(keep_out=BOX)
    rig.measured = pose_at(0.45)
    rig.armed()
    rig.tick(100, policy=twist(0.2))
    assert rig.gate.target.position[0] == pytest.approx(FACE, abs=1e-5)
    assert "keep_out" in rig.gate.take_limits()
    rig.tick(50, policy=twist(0.2, 0.1))
    assert rig.gate.target.position[0] > FACE + 0.01, "past the corner the way is free"


@settings(max_examples=300, deadline=None)
@given(st.tuples(*[st.floats(-2, 2)] * 3), st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_line_enters_a_box_where_points_of_it_do(start: tuple[float, ...], way: tuple[float, ...]) -> None:
    low, high = np.array([-1.0, -0.5, 0.0]), np.array([0.5, 1.0, 1.0])
    line = np.array(start) + np.linspace(0, 1, 401)[:, None] * np.array(way)
    if ((line > low + 1e-9) & (line < high - 1e-9)).all(1).any():
        assert enters(np.array(start), np.array(way), low, high)
    elif not ((line > low - 0.02) & (line < high + 0.02)).all(1).any():
        assert not enters(np.array(start), np.array(way), low, high)


KEEP_OUT = (0.45, -0.03, 0.0, 0.47, 0.03, 0.1, 0.56, 0.06, 0.03, 0.7, 0.07, 0.032)
legs = st.lists(st.tuples(st.tuples(*[st.floats(-0.26, 0.26)] * 3), st.tuples(*[st.floats(-0.87, 0.87)] * 3),
                          st.sampled_from([0.001, 0.01, 0.02]), st.integers(1, 30)), min_size=3, max_size=15)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([(0.39, 0.0, 0.03), (0.52, 0.05, 0.04), (0.61, -0.1, 0.036)]), legs)
def test_the_envelope_alone_keeps_every_limit(start: tuple[float, float, float], legs: list) -> None:
    """Without the filters before it: braking always has room, at whatever length of the ticks."""
    config = GateConfig.from_mapping(PARAMETERS | {"keep_out": KEEP_OUT})
    envelope = Envelope(config.limits, config.envelope)
    envelope.reset(pose_at(*start))
    low, high = np.array(PARAMETERS["workspace_low"]), np.array(PARAMETERS["workspace_high"])
    boxes = config.envelope.inflated()
    for linear, angular, dt, ticks in legs:
        for _ in range(ticks):
            velocity = envelope.velocity
            envelope.advance(np.array([*linear, *angular]), dt)
            position = envelope.pose.position
            assert (position >= low - 1e-12).all() and (position <= high + 1e-12).all()
            assert not any((position > a + 1e-9).all() and (position < b - 1e-9).all() for a, b in boxes)
            assert np.linalg.norm(envelope.vector[3:]) <= PARAMETERS["max_tilt"] + 1e-9
            change = envelope.velocity - velocity
            assert np.linalg.norm(change[:3]) <= ACCELERATION * dt + 1e-9
            assert np.linalg.norm(change[3:]) <= TURNING * dt + 1e-9


def test_from_outside_its_limits_the_target_only_comes_nearer() -> None:
    config = GateConfig.from_mapping(PARAMETERS)
    envelope = Envelope(config.limits, config.envelope)
    envelope.reset(pose_at(0.628, rotation=(0.4, 0, 0)))
    for command in [twist(0.2, angular=(0.5, 0.2, 0))] * 20 + [twist(-0.05, angular=(-0.3, 0.3, 0))] * 20:
        before = envelope.vector
        envelope.advance(command, 0.01)
        assert envelope.vector[0] <= max(before[0], 0.625) + 1e-12
        assert np.linalg.norm(envelope.vector[3:]) <= max(np.linalg.norm(before[3:]), 0.35) + 1e-9
    assert envelope.vector[0] < 0.625
