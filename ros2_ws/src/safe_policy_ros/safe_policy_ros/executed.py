"""The action that really ran, from the gate's own commanded poses."""

from __future__ import annotations

from collections import deque

import numpy as np

from safe_policy_core.interfaces import Specs
from safe_policy_core.safety.motion import CONTROL_PERIOD

SHORTEST_WINDOW = 0.03
"""[s] Under this the gate's 50 Hz status does not resolve a velocity."""


def action_scale(specs: Specs) -> np.ndarray:
    """(6,) what an action of 1 means in one control period [m, rad]."""
    translation, rotation = specs.scales["max_translation_step"], specs.scales["max_rotation_step"]
    return np.array([translation] * 3 + [rotation] * 3)


class TargetTrack:
    """The commanded pose over the last seconds, as stamped by the gate."""

    def __init__(self, length: int = 256) -> None:
        self._times: deque[float] = deque(maxlen=length)
        self._targets: deque[np.ndarray] = deque(maxlen=length)

    def append(self, time: float, target: np.ndarray) -> None:
        """target (6,) pose vector at `time` [s]; samples out of order are dropped."""
        if not self._times or time > self._times[-1]:
            self._times.append(time)
            self._targets.append(target)

    def clear(self) -> None:
        self._times.clear()
        self._targets.clear()

    def __len__(self) -> int:
        return len(self._times)

    def executed_action(self, begin: float, scale: np.ndarray) -> np.ndarray:
        """(6,) float32 mean commanded velocity since `begin` [s], as an action of one control period.

        The window runs from the moment the command was sent to the newest status. Dividing by its
        measured length keeps the 20 ms grain of the status out of the action. Clipped to [-1, 1].
        Zeros when the gate has said nothing in the window.
        """
        if len(self) < 2:
            return np.zeros(6, np.float32)
        times, targets = np.array(self._times), np.array(self._targets)
        begin = min(begin, times[-1] - SHORTEST_WINDOW)
        begin = max(begin, times[0])
        window = times[-1] - begin
        if window <= 0:
            return np.zeros(6, np.float32)
        before = np.array([np.interp(begin, times, targets[:, axis]) for axis in range(6)])
        action = (targets[-1] - before) * (CONTROL_PERIOD / window) / scale
        return np.clip(action, -1, 1).astype(np.float32)
