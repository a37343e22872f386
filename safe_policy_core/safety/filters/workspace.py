"""The box for the tool, the cone for its orientation, and the boxes it keeps out of.

These make the target glide along a boundary and slow down before it. `envelope.Envelope` is what guarantees
that it never crosses.
"""

from __future__ import annotations

import numpy as np

from safe_policy_core.safety.filters.filter import Situation, clip_along, norm


class WorkspaceLimit:
    """Axis by axis: at most the distance to the wall within the time that stopping takes."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = np.asarray(low, float), np.asarray(high, float)

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        position, linear = situation.target[:3], velocity[:3]
        # A target that began outside need not hurry back, but may go no farther.
        least = np.minimum((self._low - position) / situation.horizon_linear, 0)
        most = np.maximum((self._high - position) / situation.horizon_linear, 0)
        limited = np.minimum(np.maximum(linear, least), most)
        changed = bool((np.abs(limited - linear) > 1e-12).any())
        velocity[:3] = limited
        return "workspace" if changed else ""


class TiltLimit:
    """Limits the rotation that increases the tilt."""

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        tilt = situation.target[3:]
        size = norm(tilt)
        if size < 1e-9:
            return ""
        # The angle of a rotation changes by the angular velocity's component along its axis.
        most = max((self._limit - size) / situation.horizon_angular, 0.0)
        return "tilt" if clip_along(velocity[3:], tilt / size, most) else ""


class KeepOutLimit:
    """Limits the motion towards the face of a box that the target stands before, if it would run into the box."""

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self._low, self._high = np.asarray(low, float), np.asarray(high, float)

    def apply(self, velocity: np.ndarray, situation: Situation) -> str:
        position, linear = situation.target[:3], velocity[:3]
        if not enters(position, linear * situation.horizon_linear, self._low, self._high):
            return ""
        below, above = self._low - position, position - self._high
        distances = np.maximum(below, above)
        axis = int(distances.argmax())
        towards = np.zeros(3)
        towards[axis] = 1.0 if below[axis] >= above[axis] else -1.0
        most = max(float(distances[axis]), 0.0) / situation.horizon_linear
        return "keep_out" if clip_along(linear, towards, most) else ""


def enters(start: np.ndarray, way: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the straight line from `start` along `way` (3,) meets the inside of a box (slab method)."""
    first, last = 0.0, 1.0
    for s, w, a, b in zip(start.tolist(), way.tolist(), low.tolist(), high.tolist(), strict=True):
        if w == 0.0:
            if not a < s < b:
                return False
            continue
        near, far = ((a - s) / w, (b - s) / w) if w > 0 else ((b - s) / w, (a - s) / w)
        first, last = max(first, near), min(last, far)
        if first >= last:
            return False
    return True
