"""What the policy's own method thinks of its commands. It can hold the arm, and never lets it do more."""

from __future__ import annotations

import math

from safe_policy_core.safety.gate_config import LearnedLimits
from safe_policy_core.safety.guards.guard import CLEAR, Drive, Silence, Verdict

RESOLUTION = 1e-5
"""A float32 probability may leave [0, 1] by its rounding."""


class LearnedGuard:
    """Veto by the method's estimates; a learned policy whose estimates cease or make no sense is stopped."""

    def __init__(self, limits: LearnedLimits) -> None:
        self._limits = limits
        self._silence = Silence(limits.monitor_timeout, limits.monitor_timeout)
        self._violation, self._cost = 0.0, 0.0
        self._invalid = ""
        self._invalid_at = float("-inf")

    def estimate(self, violation_probability: float, cost_value: float, now: float) -> None:
        """The policy's estimates with a command: probability of a violation, and discounted cost from here."""
        self._silence.heard(now)
        if not math.isfinite(violation_probability) or not math.isfinite(cost_value) or not (
                -RESOLUTION <= violation_probability <= 1 + RESOLUTION):
            self._invalid = (f"violation probability {violation_probability:g}, cost value {cost_value:g}; "
                             "expected [0, 1] and a finite number")
            self._invalid_at = now
            return
        self._violation, self._cost = violation_probability, cost_value

    def check(self, now: float, drive: Drive) -> Verdict:
        silent, late = self._silence.check(now, drive.learned)
        invalid, self._invalid = self._invalid, ""
        if not drive.learned or not self._limits.required:
            invalid, silent, late = "", False, False
        if invalid:
            return Verdict("monitor_invalid", invalid)
        if silent:
            return Verdict("monitor_stale", f"no estimates of the policy for {self._silence.age(now):.2f} s; a method "
                                            "that has none needs learned_layer: absent")
        if late:
            return Verdict(hold="monitor_late")
        if drive.learned and self._violation > self._limits.max_violation_probability:
            return Verdict(hold="veto_violation")
        if drive.learned and self._cost > self._limits.max_cost_value:
            return Verdict(hold="veto_cost")
        return CLEAR

    def cause(self, now: float) -> str:
        age = now - self._invalid_at
        if self._limits.required and age < self._limits.monitor_timeout:
            return f"monitor_invalid: the policy's estimates made no sense {age:.2f} s ago; load another policy"
        return ""

    def begin(self, now: float) -> None:
        self._silence.check(now, False)
        self._invalid = ""
        self._violation, self._cost = 0.0, 0.0
