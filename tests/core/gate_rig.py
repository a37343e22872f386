"""A gate with made-up time for its tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_policy_core.geometry import Pose, quaternion_from_rotation_vector
from safe_policy_core.safety.commands import Command
from safe_policy_core.safety.gate import Decision, SafetyGate
from safe_policy_core.safety.gate_config import GateConfig

FRAME = "fr3_link0"
NOMINAL = np.array([1.0, 0.0, 0.0, 0.0])
PARAMETERS: dict[str, Any] = {
    "frame": FRAME, "workspace_low": (0.375, -0.125, 0.028), "workspace_high": (0.625, 0.125, 0.044),
    "nominal_quaternion": (1.0, 0.0, 0.0, 0.0), "max_tilt": 0.35, "max_translation_speed": 0.26,
    "max_rotation_speed": 0.87, "max_translation_lead": 0.04, "max_rotation_lead": 0.25,
    "max_translation_acceleration": 8.0, "max_rotation_acceleration": 17.0,
    "keep_out": (-0.2, -0.2, 0.0, 0.2, 0.2, 0.6), "keep_out_margin": 0.02,
    "soft_force": 15.0, "hard_force": 30.0, "soft_torque": 5.0, "hard_torque": 12.0,
    "learned_layer": "required", "max_violation_probability": 0.9, "max_cost_value": 10.0, "monitor_timeout": 0.2,
    "cost_budget": 3.0,
    "command_span": 0.1, "command_timeout": 0.15, "state_timeout": 0.1, "camera_hold": 0.12, "camera_timeout": 0.2,
    "heartbeat_hold": 0.15, "heartbeat_timeout": 0.2, "teleop_hold": 0.5, "stop_time": 0.1, "max_stamp_age": 0.5,
    "max_stamp_ahead": 0.05, "max_clock_step": 0.05, "quiet_time": 0.3, "measured_margin": 0.02,
    "measured_tilt_margin": 0.15, "max_settled_lead": 0.02, "settling_time": 1.0,
    "arming_margin": 0.005, "max_measured_jump": 0.03, "max_measured_turn": 0.3,
    "max_measured_speed": 0.6, "max_measured_rotation_speed": 2.0}
CENTRE = Pose(np.array([0.5, 0.0, 0.036]), NOMINAL)
CLOCK_OFFSET = 1.7e9
"""ROS time minus steady time."""


def pose_at(x: float = 0.5, y: float = 0.0, z: float = 0.036, rotation: tuple[float, ...] = (0, 0, 0)) -> Pose:
    return Pose.from_vector(np.array([x, y, z, *rotation]), NOMINAL)


def twist(*linear: float, angular: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return np.array([*linear, *[0.0] * (3 - len(linear)), *angular])


class Rig:
    """Steps a gate at 100 Hz with an arm that follows its target perfectly, unless told otherwise.

    talking: which of the gate's neighbours speak in every period: arm's wrench, camera, runner, policy's monitor.
    """

    def __init__(self, **changes: Any) -> None:
        self.gate = SafetyGate(GateConfig.from_mapping(PARAMETERS | changes))
        self.now = 100.0
        self.measured: Pose | None = CENTRE
        self.follows = True
        self.wrench = np.zeros(6)
        self.talking = {"clock", "wrench", "camera", "runner", "monitor"}
        self.frames = 0
        self.decision = Decision(self.gate.state, "", "", None)

    @property
    def clock(self) -> float:
        return self.now + CLOCK_OFFSET

    def measure(self, pose: Pose | None = None, frame: str = FRAME, stamp: float | None = None) -> str:
        return self.gate.measurement(pose or self.measured, frame, stamp or self.clock, self.now)

    def send(self, value: Any, source: str = "policy", age: float = 0.0, frame: str = FRAME,
             stamp: float | None = None) -> str:
        command = Command(value, frame, self.clock - age if stamp is None else stamp)
        return self.gate.command(source, command, self.now, self.clock)

    def talk(self) -> None:
        """What the gate's neighbours say in one period."""
        gate, now = self.gate, self.now
        if "clock" in self.talking:
            gate.clock.told(now, self.clock)
        if "wrench" in self.talking:
            gate.force.measured(self.wrench, now)
        if "camera" in self.talking:
            self.frames += 1
            gate.camera.frame(self.clock, self.frames, False, now)
        if "runner" in self.talking:
            gate.supervisor.heartbeat(now)
        if "monitor" in self.talking:
            gate.learned.estimate(0.1, 0.5, now)

    def tick(self, count: int = 1, **streams: np.ndarray) -> Decision:
        """`count` periods; `streams` are twists by source, sent every period."""
        for _ in range(count):
            self.now += 0.01
            if self.measured is not None:
                self.measure()
            self.talk()
            for source, value in streams.items():
                self.send(value, source)
            self.decision = self.gate.tick(self.now)
            if self.follows and self.decision.target is not None and self.measured is not None:
                self.measured = self.decision.target
        return self.decision

    def armed(self) -> Rig:
        self.tick(3)
        assert self.gate.arm(self.now, self.clock) == (True, f"armed, epoch {self.gate.epoch}")
        return self

    def arm(self) -> tuple[bool, str]:
        return self.gate.arm(self.now, self.clock)


def rotate(angle: float, axis: int) -> Pose:
    """The centre, turned by `angle` [rad] about a base axis."""
    vector = np.zeros(3)
    vector[axis] = angle
    from safe_policy_core.geometry import multiply
    return Pose(CENTRE.position, multiply(quaternion_from_rotation_vector(vector), NOMINAL))
