"""How far the target may run ahead of the arm."""

from __future__ import annotations

import numpy as np

from safe_policy_core.safety.filters.filter import Situation, clip_along, norm


class LeadLimit:
    """Bounds the pull of an impedance controller against an obstruction.

    When the arm itself is moved away, the target follows it back to the limit, as fast as it may move at all.
    """

    def __init__(self, part: slice, limit: float, speed: float, reason: str) -> None:
        self._part, self._limit, self._speed, self._reason = part, limit, speed, reason
        self._angular = part.start >= 3

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        part = self._part
        lead = situation.target[part] - situation.measured[part]
        size = norm(lead)
        if size < 1e-9:
            return ""
        horizon = situation.horizon_angular if self._angular else situation.horizon_linear
        most = max((self._limit - size) / horizon, -self._speed)
        return self._reason if clip_along(velocity[part], lead / size, most) else ""
