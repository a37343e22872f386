"""What every scripted demonstrator is, and the noise that they share."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from safe_policy_core.interfaces import Observation

NAVIGATION_BEHAVIOURS = ("random", "safe", "unsafe")
"""FOSP's, in Safety-Gymnasium."""


class Controller(Protocol):
    """Drives one episode. Made anew for each, with the environment and a generator from which its style is drawn.

    `style` says how it drives, for the dataset's metadata.
    """

    style: dict[str, float]

    def action(self, observation: Observation) -> np.ndarray:
        """(action size,) float32 in [-1, 1]."""
        ...


class ActionNoise:
    """Gaussian noise correlated over steps, as a person's hand: white noise averages out within a few steps.

    scale: standard deviation. memory: correlation from one step to the next.
    """

    def __init__(self, size: int, scale: float, rng: np.random.Generator, memory: float = 0.9) -> None:
        self._state, self._scale, self._memory, self._rng = np.zeros(size), scale, memory, rng

    def disturb(self, action: np.ndarray) -> np.ndarray:
        """The action with noise, inside its bounds."""
        fresh = self._rng.normal(size=self._state.shape) * self._scale * np.sqrt(1 - self._memory**2)
        self._state = self._memory * self._state + fresh
        return np.clip(action + self._state, -1, 1).astype(np.float32)
