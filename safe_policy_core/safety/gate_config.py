"""What the safety gate is told by its parameter file. Nothing here has a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.safety.motion import MotionLimits


@dataclass(frozen=True)
class WatchTimes:
    """Times [s] and tolerances of the gate's watchdogs. Every one is required.

    command_timeout: silence after a command that asked for motion, by receive time.
    state_timeout: silence of the measured pose, by receive time.
    teleop_hold: how long after its last motion command the operator keeps the policy out.
    stop_time: ramp from the last commanded velocity to rest when the gate stops the arm.
    max_stamp_age, max_stamp_ahead: how far a command's stamp may lie behind and ahead of the clock.
    quiet_time: how long refused commands must have ceased before arming.
    measured_margin [m], measured_tilt_margin [rad]: how far the measured pose may be outside the limits.
    arming_margin: how far outside the box the arm may stand when the target starts from it [m].
    max_measured_jump [m], max_measured_turn [rad]: largest change between two measured poses.
    """

    command_timeout: float
    state_timeout: float
    teleop_hold: float
    stop_time: float
    max_stamp_age: float
    max_stamp_ahead: float
    quiet_time: float
    measured_margin: float
    measured_tilt_margin: float
    arming_margin: float
    max_measured_jump: float
    max_measured_turn: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value) or value <= 0:
                raise ConfigurationError(f"{field.name}: expected a positive number, got {value!r}")


@dataclass(frozen=True)
class GateConfig:
    """frame: the base frame, the only one in which commands and poses are taken."""

    limits: MotionLimits
    times: WatchTimes
    frame: str

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> GateConfig:
        """From one flat mapping. Raises `ConfigurationError` naming what is missing or unknown."""
        limit_names, time_names = ({f.name for f in fields(c)} for c in (MotionLimits, WatchTimes))
        known = limit_names | time_names | {"frame"}
        if missing := known - values.keys():
            raise ConfigurationError(f"safety gate: {', '.join(sorted(missing))} missing; limits have no defaults, "
                                     "set them in the parameter file (robot_bringup/config/safety_gate.yaml)")
        if unknown := values.keys() - known:
            raise ConfigurationError(f"safety gate: unknown {', '.join(sorted(unknown))}")
        if not (isinstance(values["frame"], str) and values["frame"]):
            raise ConfigurationError(f"frame: expected the name of the base frame, got {values['frame']!r}")
        return cls(MotionLimits.from_mapping({n: values[n] for n in limit_names}),
                   WatchTimes(**{n: values[n] for n in time_names}), values["frame"])
