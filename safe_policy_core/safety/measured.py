"""Watches the measured pose: is it there, is it where it may be, does it move as an arm can."""

from __future__ import annotations

from collections import deque

import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.guards.guard import CLEAR, Drive, Silence, Verdict

SPEED_WINDOW = 0.1
"""[s] Over which the arm's own speed is taken: single samples come too irregularly."""


class PoseGuard:
    """Keeps the newest measured pose. Times are steady seconds of receipt."""

    def __init__(self, config: GateConfig) -> None:
        self._times, self._limits, self._frame = config.times, config.limits, config.frame
        self._keep_out = config.envelope.boxes()
        self._nominal = np.asarray(config.limits.nominal_quaternion)
        self._silence = Silence(config.times.state_timeout, config.times.state_timeout)
        self._pose: Pose | None = None
        self._vector = np.zeros(6)
        self._stamp = -np.inf
        self._past: deque[tuple[float, np.ndarray]] = deque()
        self._fault = ""

    @property
    def pose(self) -> Pose | None:
        """The newest measured pose, None before the first."""
        return self._pose

    @property
    def vector(self) -> np.ndarray:
        """(6,) pose vector of `pose`."""
        return self._vector

    def fresh(self, now: float) -> bool:
        return self._silence.age(now) < self._times.state_timeout

    def put(self, pose: Pose | None, frame: str, stamp: float, now: float) -> str:
        """Takes a measured pose (None: it could not be read). Returns what is wrong with it, or "".

        A pose whose stamp does not advance is not taken: a frozen publisher looks silent, as it should.
        """
        why = self._take(pose, frame, stamp, now)
        if why and why != "measured_repeated":
            self._fault = self._fault or why
        return why

    def _take(self, pose: Pose | None, frame: str, stamp: float, now: float) -> str:
        if pose is None or not (np.isfinite(pose.position).all() and np.isfinite(pose.quaternion).all()):
            return "measured_invalid"
        if frame != self._frame:
            return "measured_wrong_frame"
        # Backwards only after a gap: then the sender was restarted, or its clock was set.
        if stamp == self._stamp or (stamp < self._stamp and self.fresh(now)):
            return "measured_repeated"
        vector = pose.to_vector(self._nominal)
        # After a gap in time the arm may be anywhere; the gap itself is the fault.
        jumped = self._pose is not None and self.fresh(now) and self._jumped(vector)
        if not self.fresh(now):
            self._past.clear()
        self._pose, self._vector, self._stamp = pose, vector, stamp
        self._silence.heard(now)
        return "measured_jump" if jumped else self.position_fault() or self._speed_fault()

    def _jumped(self, vector: np.ndarray) -> bool:
        # The rotation vector is within half a percent of the angle while the tilt is inside its limit.
        change = vector - self._vector
        return bool(np.linalg.norm(change[:3]) > self._times.max_measured_jump
                    or np.linalg.norm(change[3:]) > self._times.max_measured_turn)

    def _speed_fault(self) -> str:
        past = self._past
        past.append((self._stamp, self._vector))
        while len(past) > 2 and self._stamp - past[1][0] >= SPEED_WINDOW:
            past.popleft()
        span = self._stamp - past[0][0]
        if span < SPEED_WINDOW:
            return ""
        way = self._vector - past[0][1]
        if (np.linalg.norm(way[:3]) > self._times.max_measured_speed * span
                or np.linalg.norm(way[3:]) > self._times.max_measured_rotation_speed * span):
            return "measured_speed"
        return ""

    def outside(self) -> float:
        """Distance of the last measured position from the workspace box [m], 0 inside."""
        low, high = np.asarray(self._limits.workspace_low), np.asarray(self._limits.workspace_high)
        return float(np.linalg.norm(np.maximum(np.maximum(low - self._vector[:3], self._vector[:3] - high), 0)))

    def in_keep_out(self, margin: float = 0.0) -> bool:
        """Whether the last measured position is in a keep-out box, or within `margin` [m] of one."""
        position = self._vector[:3]
        return any(bool(((low - margin < position) & (position < high + margin)).all()) for low, high in self._keep_out)

    def position_fault(self) -> str:
        """What is wrong with the last pose by more than the margins, or ""."""
        if self._pose is None:
            return ""
        if self.in_keep_out():
            return "measured_keep_out"
        if self.outside() > self._times.measured_margin:
            return "measured_workspace"
        if np.linalg.norm(self._vector[3:]) > self._limits.max_tilt + self._times.measured_tilt_margin:
            return "measured_tilt"
        return ""

    def where(self) -> str:
        """The measured position and the box, for a person."""
        low, high = self._limits.workspace_low, self._limits.workspace_high
        tilt = float(np.linalg.norm(self._vector[3:]))
        return (f"tool at ({', '.join(f'{v:.3f}' for v in self._vector[:3])}) m, tilt {tilt:.2f} rad; box "
                f"({', '.join(f'{v:g}' for v in low)}) to ({', '.join(f'{v:g}' for v in high)}) m")

    # As a guard

    def check(self, now: float, drive: Drive) -> Verdict:
        fault, self._fault = self._fault, ""
        if fault:
            return Verdict(fault, self.where() if self._pose is not None else "")
        if self._silence.check(now, True)[0]:
            return Verdict("stale_state", f"no measured pose for {self._silence.age(now):.2f} s")
        return CLEAR

    def cause(self, now: float) -> str:
        if not self.fresh(now):
            age = self._silence.age(now)
            ago = f"for {age:.2f} s" if np.isfinite(age) else "so far"
            return f"stale_state: no measured pose {ago}; is the arm's node running?"
        fault = self.position_fault()
        return f"{fault}: {self.where()}; guide the arm back by hand" if fault else ""

    def begin(self, now: float) -> None:
        self._fault = ""
        self._silence.check(now, False)
