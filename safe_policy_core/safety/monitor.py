"""Watches the measured pose: is it there, is it where it may be, does it move as an arm can."""

from __future__ import annotations

import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.gate_config import GateConfig


class PoseMonitor:
    """Keeps the newest measured pose. Times are steady seconds of receipt."""

    def __init__(self, config: GateConfig) -> None:
        self._times, self._limits, self._frame = config.times, config.limits, config.frame
        self._nominal = np.asarray(config.limits.nominal_quaternion)
        self._pose: Pose | None = None
        self._vector = np.zeros(6)
        self._received = -np.inf
        self._stamp = -np.inf

    @property
    def pose(self) -> Pose | None:
        """The newest measured pose, None before the first."""
        return self._pose

    def fresh(self, now: float) -> bool:
        return now - self._received < self._times.state_timeout

    def age(self, now: float) -> float:
        """Seconds since the last measured pose, infinite before the first."""
        return now - self._received

    def put(self, pose: Pose | None, frame: str, stamp: float, now: float) -> str:
        """Takes a measured pose (None: it could not be read). Returns what is wrong with it, or "".

        A pose whose stamp does not advance is not taken: a frozen publisher looks silent, as it should.
        """
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
        self._pose, self._vector, self._received, self._stamp = pose, vector, now, stamp
        return "measured_jump" if jumped else self.position_fault()

    def _jumped(self, vector: np.ndarray) -> bool:
        # The rotation vector is within half a percent of the angle while the tilt is inside its limit.
        change = vector - self._vector
        return bool(np.linalg.norm(change[:3]) > self._times.max_measured_jump
                    or np.linalg.norm(change[3:]) > self._times.max_measured_turn)

    def outside(self) -> float:
        """Distance of the last measured position from the workspace box [m], 0 inside."""
        low, high = np.asarray(self._limits.workspace_low), np.asarray(self._limits.workspace_high)
        return float(np.linalg.norm(np.maximum(np.maximum(low - self._vector[:3], self._vector[:3] - high), 0)))

    def position_fault(self) -> str:
        """"measured_workspace" or "measured_tilt" when the last pose is outside the limits by more than the margin."""
        if self._pose is None:
            return ""
        if self.outside() > self._times.measured_margin:
            return "measured_workspace"
        if np.linalg.norm(self._vector[3:]) > self._limits.max_tilt + self._times.measured_tilt_margin:
            return "measured_tilt"
        return ""

    def where(self) -> str:
        """The measured position and the box, for a person."""
        if self._pose is None:
            return "no pose"
        low, high = self._limits.workspace_low, self._limits.workspace_high
        tilt = float(np.linalg.norm(self._vector[3:]))
        return (f"tool at ({', '.join(f'{v:.3f}' for v in self._vector[:3])}) m, tilt {tilt:.2f} rad; box "
                f"({', '.join(f'{v:g}' for v in low)}) to ({', '.join(f'{v:g}' for v in high)}) m")
