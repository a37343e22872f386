"""The gate's filters in their order, and the envelope behind them."""

from __future__ import annotations

import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.envelope import Envelope
from safe_policy_core.safety.filters.filter import Situation, VelocityFilter
from safe_policy_core.safety.filters.force import ForceLimit
from safe_policy_core.safety.filters.lead import LeadLimit
from safe_policy_core.safety.filters.speed import SpeedLimit
from safe_policy_core.safety.filters.workspace import KeepOutLimit, TiltLimit, WorkspaceLimit
from safe_policy_core.safety.gate_config import GateConfig

LINEAR, ANGULAR = slice(0, 3), slice(3, 6)


class FilterChain:
    """Speed, force, lead, tilt, workspace and keep-out boxes, speed again, then the envelope, which has the last word.

    What depends on measurements comes before what does not: no measured pose, however wild, moves the target out
    of its box or faster than it may.
    """

    def __init__(self, config: GateConfig) -> None:
        limits, force, envelope = config.limits, config.force, config.envelope
        self._nominal = np.asarray(limits.nominal_quaternion)
        self._top_speeds = limits.max_translation_speed, limits.max_rotation_speed
        self._speeds: list[VelocityFilter] = [
            SpeedLimit(LINEAR, limits.max_translation_speed, "translation_speed"),
            SpeedLimit(ANGULAR, limits.max_rotation_speed, "rotation_speed")]
        self._filters: list[VelocityFilter] = [
            ForceLimit(LINEAR, force.soft_force, force.hard_force, "force"),
            ForceLimit(ANGULAR, force.soft_torque, force.hard_torque, "torque"),
            LeadLimit(LINEAR, limits.max_translation_lead, limits.max_translation_speed, "translation_lead"),
            LeadLimit(ANGULAR, limits.max_rotation_lead, limits.max_rotation_speed, "rotation_lead"),
            TiltLimit(limits.max_tilt),
            WorkspaceLimit(np.array(limits.workspace_low), np.array(limits.workspace_high)),
            *(KeepOutLimit(low, high) for low, high in envelope.inflated())]
        self.envelope = Envelope(limits, envelope)

    def advance(self, twist: np.ndarray, dt: float, measured: Pose, wrench: np.ndarray) -> list[str]:
        """Moves the target by what is left of `twist` (6,) [m/s, rad/s] for `dt` [s]. Returns what limited it."""
        velocity = np.array(twist, float)
        envelope = self.envelope
        situation = Situation(envelope.vector, measured.to_vector(self._nominal), wrench, dt,
                              *envelope.horizon(velocity, dt, self._top_speeds))
        reasons = [stage.apply(velocity, situation) for stage in (*self._speeds, *self._filters)]
        for stage in self._speeds:  # following the arm back to the lead limit is motion too
            stage.apply(velocity, situation)
        reasons.append(envelope.advance(velocity, dt))
        return [reason for reason in reasons if reason]
