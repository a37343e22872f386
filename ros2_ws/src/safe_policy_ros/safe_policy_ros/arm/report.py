"""What the arm's process tells: joints and wrench as messages, and its health."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import WrenchStamped
from sensor_msgs.msg import JointState

from safe_policy_ros import health
from safe_policy_ros.arm.backend import ArmState
from safe_policy_ros.arm.config import JOINT_NAMES
from safe_policy_ros.messages import BASE_FRAME, ns_to_stamp

MIN_SUCCESS_RATE = 0.95
"""Below this libfranka's own communication test warns of a network or kernel that is not good enough."""


def joint_message(state: ArmState, now_ns: int) -> JointState:
    """Named joints, or none where the arm has none."""
    message = JointState(name=JOINT_NAMES if len(state.joint_positions) else [], position=state.joint_positions,
                         velocity=state.joint_velocities, effort=state.joint_efforts)
    message.header.stamp = ns_to_stamp(now_ns)
    return message


def wrench_message(wrench: np.ndarray, now_ns: int) -> WrenchStamped:
    message = WrenchStamped()
    message.header.stamp, message.header.frame_id = ns_to_stamp(now_ns), BASE_FRAME
    force, torque = message.wrench.force, message.wrench.torque
    force.x, force.y, force.z, torque.x, torque.y, torque.z = (float(v) for v in wrench)
    return message


class ArmRecord:
    """What happened since the last report. Written by the threads of the arm's process, read by one."""

    def __init__(self) -> None:
        self._fault = ""
        self._event, self._event_at, self._events = "", 0.0, 0
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        self._since, self._states, self._targets = now, 0, 0
        self._last_target: float | None = None
        self._longest_gap = 0.0
        self._rates: list[float] = []

    def add(self, state: ArmState) -> None:
        self._states += 1
        self._fault = state.fault
        if state.success_rate is not None:
            self._rates.append(state.success_rate)

    def target(self, received: float) -> None:
        """received: steady [s]."""
        self._targets += 1
        if self._last_target is not None:
            self._longest_gap = max(self._longest_gap, received - self._last_target)
        self._last_target = received

    def event(self, line: str) -> None:
        """Something that a person must be able to read later: a refusal, the end of the tracking."""
        self._event, self._event_at, self._events = line, time.monotonic(), self._events + 1

    def due(self, now: float, period: float) -> bool:
        return now - self._since >= period

    def report(self, tracking: bool, settings: Mapping[str, float | str], now_ns: int) -> DiagnosticArray:
        """ERROR while the arm takes no commands, WARN when too few of them arrive. Starts a new period."""
        now = time.monotonic()
        seconds, worst = now - self._since, min(self._rates, default=None)
        values: dict[str, float | str | int | bool] = {
            "tracking": tracking, "fault": self._fault, "state_hz": self._states / seconds,
            "targets_hz": self._targets / seconds, "target_gap_max_ms": 1e3 * self._longest_gap,
            "events": self._events, "last_event": self._event}
        if self._event:
            values["last_event_age_s"] = now - self._event_at
        if worst is not None:
            values |= {"control_command_success_rate": sum(self._rates) / len(self._rates),
                       "control_command_success_rate_min": worst}
        level, message = health.OK, "tracking" if tracking else "at rest"
        if worst is not None and worst < MIN_SUCCESS_RATE:
            level, message = health.WARN, f"{worst:.0%} of the control commands reached the arm in time"
        if self._fault:
            level, message = health.ERROR, self._fault
        elif not self._states:
            level, message = health.ERROR, "the arm is silent"
        self._begin(now)
        return health.health_message("franka", level, message, {**values, **settings}, now_ns)
