"""What a teleoperation device is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

AXES = ("x", "y", "z", "roll", "pitch", "yaw")


@dataclass(frozen=True)
class DeviceState:
    """What the operator asks for at one moment.

    twist: (6,) in [-1, 1], linear then angular, robot base frame, as a fraction of the largest speed.
    buttons: pressed or not, in the device's own order.
    """

    twist: np.ndarray = field(default_factory=lambda: np.zeros(6))
    buttons: tuple[bool, ...] = ()

    @property
    def moving(self) -> bool:
        return bool(np.any(self.twist))


class TeleopDevice(ABC):
    """A source of `DeviceState`s, read by the teleop node at its own rate."""

    @abstractmethod
    def read(self, now: float) -> DeviceState:
        """The state at `now` [s, steady clock]. Does not block.

        Raises `DeviceUnavailableError` when the device is gone.
        """

    def health(self) -> str:
        """What keeps the operator from moving the arm although the device is there, with what to do; "" when all
        is well as far as can be told."""
        return ""

    def close(self) -> None:  # noqa: B027 - devices with nothing to free need not say so
        """Frees the device. May be called twice."""


def turned(twist: np.ndarray, operator_yaw: float) -> np.ndarray:
    """(6,) from the axes of an operator who looks along `operator_yaw` [rad] to the base frame, within [-1, 1]."""
    cosine, sine = np.cos(operator_yaw), np.sin(operator_yaw)
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return np.clip(np.concatenate([turn @ twist[:3], turn @ twist[3:]]), -1.0, 1.0)


class NoDevice(TeleopDevice):
    """For runs without an operator: never asks for anything."""

    def read(self, now: float) -> DeviceState:
        return DeviceState()
