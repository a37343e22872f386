"""Yields to what presses against the arm."""

from __future__ import annotations

import numpy as np

from safe_policy_core.safety.filters.filter import Situation, clip_along, norm


class ForceLimit:
    """Between the soft and the hard limit, motion against the measured force fades to none; away from it stays free."""

    def __init__(self, part: slice, soft: float, hard: float, reason: str) -> None:
        self._part, self._soft, self._hard, self._reason = part, soft, hard, reason

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        load = situation.wrench[self._part]
        size = norm(load)
        if size <= self._soft:
            return ""
        moving, against = velocity[self._part], -load / size
        share = max(0.0, (self._hard - size) / (self._hard - self._soft))
        return self._reason if clip_along(moving, against, share * max(0.0, float(moving @ against))) else ""
