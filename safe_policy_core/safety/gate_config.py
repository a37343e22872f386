"""What the safety gate is told by its parameter file. Nothing here has a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.safety.motion import MotionLimits

REQUIRED, ABSENT = "required", "absent"


def _positive(config: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value) or value <= 0:
            raise ConfigurationError(f"{name}: expected a positive number, got {value!r}")


def _ordered(config: Any, *pairs: tuple[str, str]) -> None:
    for soft, hard in pairs:
        if not getattr(config, soft) < getattr(config, hard):
            raise ConfigurationError(f"{soft}: expected less than {hard} {getattr(config, hard)}, got "
                                     f"{getattr(config, soft)}")


@dataclass(frozen=True)
class WatchTimes:
    """Times [s] and tolerances of the gate's watchdogs. Every one is required.

    command_span: how long a command moves the target, as its sender meant it: one control period. Then the target
        waits for the next, so that a late sender moves the arm later and not further.
    command_timeout: silence after a command that asked for motion, by receive time.
    state_timeout: silence of the measured pose or the external wrench, by receive time.
    camera_hold, camera_timeout: time without a new frame after which a policy is held, and is a fault.
    heartbeat_hold, heartbeat_timeout: the same of the heartbeat of the episode's runner.
    teleop_hold: how long after its last motion command the operator keeps the policy out.
    stop_time: ramp from the last commanded velocity to rest when the gate stops the arm.
    max_stamp_age, max_stamp_ahead: how far a command's stamp may lie behind and ahead of the clock.
    max_clock_step: largest jump of the ROS clock against the steady one between two ticks.
    quiet_time: how long refused commands must have ceased before arming.
    measured_margin [m], measured_tilt_margin [rad]: how far the measured pose may be outside the limits.
    max_settled_lead [m], settling_time: how far the arm may be from a target that rests, and how soon it must be there.
    arming_margin: how far outside the box the arm may stand when the target starts from it [m].
    max_measured_jump [m], max_measured_turn [rad]: largest change between two measured poses.
    max_measured_speed [m/s], max_measured_rotation_speed [rad/s]: of the arm itself, over a tenth of a second.
    """

    command_span: float
    command_timeout: float
    state_timeout: float
    camera_hold: float
    camera_timeout: float
    heartbeat_hold: float
    heartbeat_timeout: float
    teleop_hold: float
    stop_time: float
    max_stamp_age: float
    max_stamp_ahead: float
    max_clock_step: float
    quiet_time: float
    measured_margin: float
    measured_tilt_margin: float
    max_settled_lead: float
    settling_time: float
    arming_margin: float
    max_measured_jump: float
    max_measured_turn: float
    max_measured_speed: float
    max_measured_rotation_speed: float

    def __post_init__(self) -> None:
        _positive(self, tuple(field.name for field in fields(self)))
        _ordered(self, ("command_span", "command_timeout"), ("camera_hold", "camera_timeout"),
                 ("heartbeat_hold", "heartbeat_timeout"))


@dataclass(frozen=True)
class EnvelopeLimits:
    """max_translation_acceleration [m/s^2], max_rotation_acceleration [rad/s^2]: of the target.

    keep_out: corners (x, y, z low, x, y, z high) [m] of the boxes that the tool keeps out of, one after the other.
    keep_out_margin: distance that the target keeps from them [m]; the measured tool faults inside them.
    """

    max_translation_acceleration: float
    max_rotation_acceleration: float
    keep_out: tuple[float, ...]
    keep_out_margin: float

    def __post_init__(self) -> None:
        _positive(self, ("max_translation_acceleration", "max_rotation_acceleration", "keep_out_margin"))
        corners = np.asarray(self.keep_out, float)
        if corners.ndim != 1 or len(corners) % 6 or not np.isfinite(corners).all():
            raise ConfigurationError(f"keep_out: expected six finite numbers for each box, got {self.keep_out}")
        for low, high in self.boxes():
            if not (low < high).all():
                raise ConfigurationError(f"keep_out: expected low < high on every axis, got {low} and {high} m")

    def boxes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(low, high) corners (3,) of each box."""
        return [(box[:3], box[3:]) for box in np.asarray(self.keep_out, float).reshape(-1, 6)]

    def inflated(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The boxes that the target does not enter."""
        return [(low - self.keep_out_margin, high + self.keep_out_margin) for low, high in self.boxes()]


@dataclass(frozen=True)
class ForceLimits:
    """External force [N] and torque [Nm] on the tool: soft, from where motion against it fades, and hard, a fault."""

    soft_force: float
    hard_force: float
    soft_torque: float
    hard_torque: float

    def __post_init__(self) -> None:
        _positive(self, ("soft_force", "hard_force", "soft_torque", "hard_torque"))
        _ordered(self, ("soft_force", "hard_force"), ("soft_torque", "hard_torque"))


@dataclass(frozen=True)
class LearnedLimits:
    """The layer that the policy's own method provides. It can only make the gate stricter.

    learned_layer: "required" (a policy without fresh, finite estimates is stopped) or "absent" (methods without).
    max_violation_probability, max_cost_value: estimates above which the policy is held.
    monitor_timeout: silence of the estimates that is a fault [s]. cost_budget: cost that a session may cause.
    """

    learned_layer: str
    max_violation_probability: float
    max_cost_value: float
    monitor_timeout: float
    cost_budget: float

    def __post_init__(self) -> None:
        if self.learned_layer not in (REQUIRED, ABSENT):
            raise ConfigurationError(f"learned_layer: expected {REQUIRED} or {ABSENT}, got {self.learned_layer!r}")
        _positive(self, ("max_violation_probability", "max_cost_value", "monitor_timeout", "cost_budget"))

    @property
    def required(self) -> bool:
        return self.learned_layer == REQUIRED


@dataclass(frozen=True)
class GateConfig:
    """frame: the base frame, the only one in which commands and poses are taken."""

    limits: MotionLimits
    envelope: EnvelopeLimits
    force: ForceLimits
    learned: LearnedLimits
    times: WatchTimes
    frame: str

    def __post_init__(self) -> None:
        for speed, acceleration in (("max_translation_speed", "max_translation_acceleration"),
                                    ("max_rotation_speed", "max_rotation_acceleration")):
            needed = getattr(self.limits, speed) / self.times.stop_time
            if getattr(self.envelope, acceleration) < needed:
                raise ConfigurationError(f"{acceleration}: expected at least {needed:.3g}, or {speed} does not come to "
                                         f"rest within stop_time, got {getattr(self.envelope, acceleration)}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> GateConfig:
        """From one flat mapping. Raises `ConfigurationError` naming what is missing or unknown."""
        parts = {"limits": MotionLimits, "envelope": EnvelopeLimits, "force": ForceLimits, "learned": LearnedLimits,
                 "times": WatchTimes}
        names = {part: [f.name for f in fields(kind)] for part, kind in parts.items()}
        known = {name for group in names.values() for name in group} | {"frame"}
        if missing := known - values.keys():
            raise ConfigurationError(f"safety gate: {', '.join(sorted(missing))} missing; limits have no defaults, "
                                     "set them in the parameter file (robot_bringup/config/safety_gate.yaml)")
        if unknown := values.keys() - known:
            raise ConfigurationError(f"safety gate: unknown {', '.join(sorted(unknown))}")
        if not (isinstance(values["frame"], str) and values["frame"]):
            raise ConfigurationError(f"frame: expected the name of the base frame, got {values['frame']!r}")
        made: dict[str, Any] = {part: kind(**{n: values[n] for n in names[part]}) for part, kind in parts.items()}
        return cls(**made, frame=values["frame"])
