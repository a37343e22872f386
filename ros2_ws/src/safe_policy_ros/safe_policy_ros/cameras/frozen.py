"""Notices a camera that sends the same picture again and again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_policy_ros.cameras.camera import Frame

NEW_COUNT = 300
"""A device number that leaps by more, or backwards, has begun a new count: the device was restarted."""


@dataclass(frozen=True)
class Seen:
    """sequence: number of the frame since the start, lost ones counted. repeated: it shows nothing new. lost: frames
    that the device made since the one before and that never came."""

    sequence: int
    repeated: bool
    lost: int


class FrozenWatch:
    """A frame is repeated when the device's number or the stamp of capture did not change, or when `identical`
    pictures in a row are equal byte for byte (0: equal pictures are normal, as in a simulation at rest)."""

    def __init__(self, identical: int) -> None:
        self._identical = identical
        self._last: Frame | None = None
        self._sequence = self._same = 0

    def look(self, frame: Frame) -> Seen:
        last, self._last = self._last, frame
        self._sequence += 1
        if last is None:
            return Seen(self._sequence, False, 0)
        lost = 0
        if frame.number is not None and last.number is not None and 0 < frame.number - last.number < NEW_COUNT:
            lost = frame.number - last.number - 1
            self._sequence += lost
        stands_still = frame.time_ns == last.time_ns or (frame.number is not None and frame.number == last.number)
        # Most pictures differ within their first row: the whole is compared only when that is equal.
        equal = (self._identical > 0 and frame.image.shape == last.image.shape
                 and np.array_equal(frame.image[0], last.image[0]) and np.array_equal(frame.image, last.image))
        self._same = self._same + 1 if equal else 0
        return Seen(self._sequence, stands_still or (equal and self._same + 1 >= self._identical), lost)
