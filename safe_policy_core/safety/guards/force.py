"""What presses against the arm."""

from __future__ import annotations

import numpy as np

from safe_policy_core.safety.gate_config import ForceLimits
from safe_policy_core.safety.guards.guard import CLEAR, Drive, Silence, Verdict

LARGEST_WRENCH = 1e6
"""[N, Nm] Beyond this a number is no force but garbage."""


class ForceGuard:
    """The measured external wrench: it must be there, and below the hard limits. `ForceLimit` softens before."""

    def __init__(self, limits: ForceLimits, timeout: float) -> None:
        self._limits = limits
        self._silence = Silence(timeout, timeout)
        self._timeout = timeout
        self._fault = ""
        self._detail = ""
        self.wrench = np.zeros(6)

    def measured(self, wrench: np.ndarray, now: float) -> None:
        """wrench (6,): force [N] and torque [Nm] on the tool, base frame."""
        self._silence.heard(now)
        wrench = np.asarray(wrench, float)
        if wrench.shape != (6,) or not (np.abs(wrench) < LARGEST_WRENCH).all():
            self._note("wrench_invalid", f"expected 6 finite numbers below {LARGEST_WRENCH:g}, got {wrench}")
            return
        self.wrench = wrench
        force, torque = float(np.linalg.norm(wrench[:3])), float(np.linalg.norm(wrench[3:]))
        if force > self._limits.hard_force:
            self._note("force", f"{force:.1f} N on the tool, at most {self._limits.hard_force:g} N")
        elif torque > self._limits.hard_torque:
            self._note("torque", f"{torque:.1f} Nm on the tool, at most {self._limits.hard_torque:g} Nm")

    def _note(self, fault: str, detail: str) -> None:
        if not self._fault:
            self._fault, self._detail = fault, detail

    def check(self, now: float, drive: Drive) -> Verdict:
        fault, detail = self._fault, self._detail
        self._fault = self._detail = ""
        if fault:
            return Verdict(fault, detail)
        if self._silence.check(now, True)[0]:
            return Verdict("stale_wrench", f"no external wrench for {self._silence.age(now):.2f} s")
        return CLEAR

    def cause(self, now: float) -> str:
        if self._silence.age(now) >= self._timeout:
            return "stale_wrench: no external wrench; is the arm's node running?"
        force, torque = float(np.linalg.norm(self.wrench[:3])), float(np.linalg.norm(self.wrench[3:]))
        if force > self._limits.hard_force or torque > self._limits.hard_torque:
            return f"force: {force:.1f} N and {torque:.1f} Nm on the tool; free the arm"
        return ""

    def begin(self, now: float) -> None:
        self._fault = self._detail = ""
        self._silence.check(now, False)
