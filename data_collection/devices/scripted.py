"""An operator without hands: drives to where a planner points, about as steadily as a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_collection.devices.device import DeviceState, TeleopDevice

Intent = Callable[[np.ndarray], np.ndarray]
"""Pose vector (6,) [m, rad] -> twist fraction (6,) in [-1, 1] that a perfect operator would ask for."""


@dataclass(frozen=True)
class OperatorConfig:
    """How far from perfect the operator is.

    slowest, fastest: range from which an episode's speed is drawn, share of the full speed.
    smoothing: time constant with which the hand follows the intent [s].
    translation_noise, rotation_noise: standard deviation of the hand's slow drift, fraction of full scale.
    noise_time: how long a drift lasts [s]. patience: age of the last pose after which the operator lets go [s].
    """

    slowest: float = 0.6
    fastest: float = 0.9
    smoothing: float = 0.06
    translation_noise: float = 0.12
    rotation_noise: float = 0.03
    noise_time: float = 0.3
    patience: float = 0.2


class ScriptedOperator(TeleopDevice):
    """Sees poses through `observe` and answers through `read`. At rest until `start`.

    The drift is an Ornstein-Uhlenbeck process: like a hand, and unlike white noise, it lasts long
    enough to move the arm off the path, from where the intent leads back. It scales with the
    speed, so that the hand at rest is at rest. Equal seeds and times give equal commands.
    """

    def __init__(self, config: OperatorConfig | None = None) -> None:
        self.config = config or OperatorConfig()
        self._noise = np.array([self.config.translation_noise] * 3 + [self.config.rotation_noise] * 3)
        self._intent: Intent | None = None
        self._rng = np.random.default_rng(0)
        self._speed = 1.0
        self._hand, self._drift = np.zeros(6), np.zeros(6)
        self._pose: np.ndarray | None = None
        self._pose_time = 0.0
        self._read_time: float | None = None

    def start(self, intent: Intent, seed: int) -> None:
        """Begins an episode."""
        self._intent = intent
        self._rng = np.random.default_rng([seed, 7])
        self._speed = self._rng.uniform(self.config.slowest, self.config.fastest)
        self._hand, self._drift = np.zeros(6), np.zeros(6)
        self._read_time = None

    def stop(self) -> None:
        """Lets go; the next `read` is zero."""
        self._intent = None

    @property
    def active(self) -> bool:
        return self._intent is not None

    def observe(self, pose_vector: np.ndarray, now: float) -> None:
        """pose_vector (6,) of the tool [m, rad] at `now` [s]."""
        self._pose, self._pose_time = np.asarray(pose_vector, float), now

    def read(self, now: float) -> DeviceState:
        config = self.config
        if self._intent is None or self._pose is None or now - self._pose_time > config.patience:
            self._hand, self._read_time = np.zeros(6), None
            return DeviceState()
        elapsed = 0.0 if self._read_time is None else max(now - self._read_time, 0.0)
        self._read_time = now
        wanted = np.asarray(self._intent(self._pose), float) * self._speed
        keep = np.exp(-elapsed / config.noise_time)
        self._drift = keep * self._drift + np.sqrt(1 - keep**2) * self._rng.normal(size=6) * self._noise
        self._hand = self._hand + (1 - np.exp(-elapsed / config.smoothing)) * (wanted - self._hand)
        effort = min(1.0, float(np.linalg.norm(self._hand[:3])))
        return DeviceState(np.clip(self._hand + effort * self._drift, -1.0, 1.0))
