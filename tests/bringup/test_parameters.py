"""Parameter files against the sources they must agree with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import yaml

from robot_bringup.environment import ROOT
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.motion import MotionLimits
from sim.safe_reach import control, task

CONFIG = ROOT / "robot_bringup" / "config"
TIP_BELOW_WRIST = 0.107 + 0.1034
"""[m] From the axis of joint 6 to the fingertips: flange, and hand."""


def parameters(name: str, node: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG / name).read_text())[node]["ros__parameters"]


def test_the_gate_keeps_the_limits_of_the_task() -> None:
    config = GateConfig.from_mapping(parameters("safety_gate.yaml", "safety_gate"))
    for field in fields(MotionLimits):
        assert getattr(config.limits, field.name) == getattr(task.MOTION_LIMITS, field.name), field.name
    assert config.frame == "fr3_link0"


def test_watchdogs_are_those_of_the_architecture() -> None:
    times = GateConfig.from_mapping(parameters("safety_gate.yaml", "safety_gate")).times
    assert (times.command_timeout, times.state_timeout, times.teleop_hold) == (0.15, 0.1, 0.5)
    assert (times.camera_timeout, times.heartbeat_timeout) == (0.2, 0.2)


def test_a_simulated_arm_is_granted_times_and_nothing_else() -> None:
    changed = parameters("safety_gate_simulated.yaml", "safety_gate")
    limits = parameters("safety_gate.yaml", "safety_gate")
    assert set(changed) <= {name for name in limits if name.endswith(("_timeout", "_hold"))}
    assert all(limits[name] < changed[name] <= 0.5 for name in changed)
    GateConfig.from_mapping(limits | changed)
    for launch in (ROOT / "robot_bringup" / "launch").glob("*.yaml"):
        assert ("simulated.yaml" in launch.read_text()) == (launch.name == "safe_reach_sim.launch.yaml"), launch


def test_the_arm_keeps_frankys_own_torque_steps() -> None:
    assert parameters("franka.yaml", "franka")["max_torque_step"] == 1.0


def test_the_arm_is_as_stiff_as_in_the_direct_environment() -> None:
    arm = parameters("franka.yaml", "franka")
    assert arm["translational_stiffness"] == control.TRANSLATIONAL_STIFFNESS
    assert arm["rotational_stiffness"] == control.ROTATIONAL_STIFFNESS
    assert arm["translational_damping"] == control.TRANSLATIONAL_DAMPING
    assert arm["rotational_damping"] == control.ROTATIONAL_DAMPING
    assert arm["posture_stiffness"] == control.POSTURE_STIFFNESS
    assert arm["posture_damping"] == control.POSTURE_DAMPING


def test_the_pull_of_the_arm_is_less_than_its_wrist_holds_and_enough_for_the_fastest_motion() -> None:
    """Pulled harder against something fixed, the wrist gives way and the arm flings itself upwards."""
    arm, limits = parameters("franka.yaml", "franka"), task.MOTION_LIMITS
    force, torque = (arm["max_error"][index] * arm[f"{kind}_stiffness"] for index, kind in ((0, "translational"),
                                                                                         (1, "rotational")))
    wrist = control.TORQUE_LIMITS[5]
    assert force * TIP_BELOW_WRIST < wrist and torque < wrist
    # The spring's stretch at a steady speed is damping over stiffness times that speed.
    for speed, error, kind in ((limits.max_translation_speed, arm["max_error"][0], "translational"),
                               (limits.max_rotation_speed, arm["max_error"][1], "rotational")):
        assert speed * arm[f"{kind}_damping"] / arm[f"{kind}_stiffness"] < error


def test_the_arm_gives_up_a_silent_gate_before_the_gate_could_be_started_anew() -> None:
    arm = parameters("franka.yaml", "franka")
    assert arm["target_timeout"] == 0.1 < arm["release_time"] <= 1.0
    # A target that is late by the whole timeout is still inside the step that the arm accepts.
    assert task.MOTION_LIMITS.max_translation_speed * arm["target_timeout"] < arm["max_step"]
    assert task.MOTION_LIMITS.max_rotation_speed * arm["target_timeout"] < arm["max_turn"]
