"""Largest speed of the target."""

from __future__ import annotations

import numpy as np

from safe_policy_core.safety.filters.filter import Situation, clip_norm


class SpeedLimit:
    """Shortens one part of the velocity, keeping its direction."""

    def __init__(self, part: slice, limit: float, reason: str) -> None:
        self._part, self._limit, self._reason = part, limit, reason

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        return self._reason if clip_norm(velocity[self._part], self._limit) else ""
