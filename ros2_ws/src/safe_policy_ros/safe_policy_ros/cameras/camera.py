"""What a camera is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """image (H, W, 3) uint8 RGB; time_ns: when it was captured [ns since the epoch]. number: the device's own count,
    None where it has none."""

    image: np.ndarray
    time_ns: int
    number: int | None = None


@dataclass(frozen=True)
class Calibration:
    """Pinhole model [pixels] with plumb_bob distortion (k1, k2, p1, p2, k3)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    @classmethod
    def from_vertical_view(cls, width: int, height: int, vertical_view: float) -> Calibration:
        """vertical_view [rad]: the angle between the top and the bottom of the picture."""
        focal = height / 2 / float(np.tan(vertical_view / 2))
        return cls(width, height, focal, focal, width / 2, height / 2)


class Camera(ABC):
    """Frames in the order of capture. Used from one thread."""

    noisy = True
    """Whether a sensor's noise makes pictures of a scene at rest differ, so that equal ones mean a frozen camera."""

    @property
    @abstractmethod
    def calibration(self) -> Calibration:
        """Of the frames that `read` returns."""

    @abstractmethod
    def read(self, timeout: float) -> Frame | None:
        """The next frame, or None when none comes within `timeout` [s].

        Raises `DeviceUnavailableError` when no more can come until the camera is opened anew, `EndOfRecording` at
        the end of a file.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees the camera. May be called twice."""


class EndOfRecording(Exception):
    """A camera that plays a file has played all of it."""
