"""The gate and an arm that does not go where its target is."""

from __future__ import annotations

import numpy as np
import pytest

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.gate import GateState
from tests.core.gate_rig import CENTRE, Rig, twist


def lead(rig: Rig) -> float:
    return float(np.linalg.norm(rig.gate.target.position - rig.measured.position))


def lean(rig: Rig) -> None:
    """The target runs ahead of an arm that is held, up to the lead."""
    rig.follows = False
    for _ in range(30):
        rig.tick(policy=twist(0.0, 0.15))
    assert lead(rig) == pytest.approx(0.04, abs=1e-3)


def test_an_arm_that_leans_on_something_is_let_go() -> None:
    rig = Rig().armed()
    lean(rig)
    for _ in range(40):
        rig.tick(policy=twist())
    assert lead(rig) == pytest.approx(0.04, abs=1e-3), "an arm has half a second to come to its target"
    last, leads = rig.gate.target, []
    while rig.now < 105.0:
        assert rig.tick(policy=twist()).state == GateState.HOLD
        assert np.linalg.norm(rig.gate.target.position - last.position) <= 0.04 / 0.5 * 0.011, "it does not jump"
        last = rig.gate.target
        leads.append(lead(rig))
    assert leads == sorted(leads, reverse=True) and leads[-1] == pytest.approx(0.01, abs=1e-3)
    assert rig.gate.counts["let_go"] > 10
    # Where it is let go it stays: a command goes on from there.
    rig.tick(10, policy=twist(0.0, 0.15))
    assert rig.decision.state == GateState.ACTIVE


def test_a_target_that_is_held_does_not_go_back_either() -> None:
    rig = Rig().armed()
    lean(rig)
    rig.tick(45, policy=twist())
    rig.talking.discard("camera")
    held, before = 0, lead(rig)
    while rig.tick(policy=twist(0.0, 0.15)).state != GateState.FAULT:
        held += bool(rig.decision.hold)
        assert lead(rig) >= before - 1e-9
    assert held > 5 and rig.decision.reason == "camera_silent"


def test_an_arm_that_is_driven_on_against_something_is_given_up() -> None:
    rig = Rig().armed()
    rig.follows, ahead = False, 103.0
    while rig.tick(policy=twist(0.0, 0.15)).state == GateState.ACTIVE:
        assert rig.now < 103.0
        ahead = min(ahead, rig.now) if lead(rig) > 0.02 else 103.0
    assert rig.decision.reason == "not_following" and "0.040 m" in rig.gate.detail
    assert rig.now == pytest.approx(ahead + 1.0, abs=0.05), "a second after the target was too far ahead"
    assert rig.tick(20).target is None, "withdrawn: the arm must not go there when it comes free"
    rig.tick(40)  # the command is over
    assert rig.arm()[0]
    np.testing.assert_allclose(rig.gate.target.position, CENTRE.position)


def test_an_arm_that_stays_while_its_target_slides_around_it_is_given_up() -> None:
    """Seen over the graph: an arm that had not heard of the target before it was too far ahead refused it, and a policy
    that homed, and so turned the target, waited for it."""
    rig = Rig().armed()
    lean(rig)
    began = rig.now
    for step in range(120):
        angle = 0.02 * step
        rig.tick(policy=twist(-0.15 * np.sin(angle), 0.15 * np.cos(angle)))
        if not rig.gate.armed:
            break
        assert rig.gate.velocity.any(), "else it is another test"
    assert rig.decision.reason == "not_following"
    assert rig.now - began < 1.1


def test_an_arm_that_is_slow_but_comes_is_no_such_thing() -> None:
    rig = Rig().armed()
    lean(rig)
    for step in range(300):
        rig.measured = Pose(rig.measured.position + np.array([0.0, 0.0001, 0.0]), rig.measured.quaternion)
        rig.tick(policy=twist(0.02 * np.sin(0.02 * step), 0.05))
    assert rig.gate.armed


def test_an_arm_behind_a_moving_target_is_no_such_thing() -> None:
    rig = Rig().armed()
    rig.follows = False
    for step in range(300):
        rig.tick(policy=twist(0.0, 0.15 if step % 40 < 20 else -0.15))
    assert rig.gate.armed
