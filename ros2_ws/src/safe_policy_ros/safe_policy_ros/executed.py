"""The action that really ran, from the gate's own commanded poses."""

from __future__ import annotations

import numpy as np

from safe_policy_core.interfaces import Specs
from safe_policy_core.safety.motion import CONTROL_PERIOD


def action_scale(specs: Specs) -> np.ndarray:
    """(6,) what an action of 1 means in one control period [m, rad]."""
    translation, rotation = specs.scales["max_translation_step"], specs.scales["max_rotation_step"]
    return np.array([translation] * 3 + [rotation] * 3)


class TargetTrack:
    """How far the gate's commanded pose has gone, in actions whose sum is exact."""

    def __init__(self) -> None:
        self._time, self._target, self._velocity = -np.inf, np.zeros(6), np.zeros(6)
        self._reported = np.zeros(6)

    def append(self, time: float, target: np.ndarray) -> None:
        """target (6,) pose vector at `time` [s], as stamped by the gate; samples out of order are dropped."""
        if time > self._time:
            if np.isfinite(self._time):
                self._velocity = (target - self._target) / (time - self._time)
            self._time, self._target = time, target

    def begin(self) -> None:
        """Actions are counted from here."""
        self._reported = self._target.copy()

    def executed_action(self, sent: float, scale: np.ndarray) -> np.ndarray:
        """(6,) float32 what the command of `sent` [s] moves, to the end of its control period.

        The newest status is a few hundredths of a second from that end: until then the target is taken to go on as it
        does. What comes otherwise, and what is clipped to [-1, 1], is in the next action: from `begin` on all actions
        add up to where the target is. Zeros before the gate has said anything.
        """
        left = min(max(sent + CONTROL_PERIOD - self._time, 0.0), CONTROL_PERIOD)
        moved = self._target + self._velocity * left - self._reported if np.isfinite(self._time) else np.zeros(6)
        action = np.clip(moved / scale, -1, 1).astype(np.float32)
        self._reported = self._reported + action * scale
        return action
