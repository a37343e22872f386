"""What a teleoperation device is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np


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

    def close(self) -> None:  # noqa: B027 - devices with nothing to free need not say so
        """Frees the device. May be called twice."""


class NoDevice(TeleopDevice):
    """For runs without an operator: never asks for anything."""

    def read(self, now: float) -> DeviceState:
        return DeviceState()
