"""What every velocity filter is, and what it is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Situation:
    """target, measured (6,): commanded and measured pose vector [m, rad]. wrench (6,): external [N, Nm], base
    frame. dt: length of this tick [s]. horizon_linear, horizon_angular: the time [s] in which the target would
    come to rest from the speed asked for, this tick included.
    """

    target: np.ndarray
    measured: np.ndarray
    wrench: np.ndarray
    dt: float
    horizon_linear: float
    horizon_angular: float


class VelocityFilter(Protocol):
    """Chained: each gets what the one before let through. Stateless, so the order alone decides."""

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        """Limits `velocity` (6,) [m/s, rad/s] in place; returns why, or "" when it was left as it is."""
        ...


def norm(vector: np.ndarray) -> float:
    """Length of a short vector; NumPy's own takes five times as long, and the gate asks some twenty times a tick."""
    return math.sqrt(float(vector @ vector))


def clip_norm(vector: np.ndarray, limit: float) -> bool:
    """Shortens `vector` in place to `limit`; whether it was longer."""
    length = norm(vector)
    if length <= limit * (1 + 1e-9):
        return False
    vector *= limit / length
    return True


def clip_along(velocity: np.ndarray, direction: np.ndarray, most: float) -> bool:
    """Limits the component of `velocity` along the unit vector `direction` to `most`; whether it was larger.

    What is left glides along the limit in place of stopping dead at it.
    """
    along = float(velocity @ direction)
    if along <= most + 1e-12:
        return False
    velocity -= (along - most) * direction
    return True
