"""The control period on a steady clock, in step with the camera."""

from __future__ import annotations

import time

FOLLOW = 0.3
"""Share of a step's deviation by which the grid follows the camera: one late picture does not move it far."""


class Pacer:
    """Deadlines `period` apart: being late once does not shift the ones that follow.

    A deadline that was missed by more than half a period is not made up for by a burst of short
    steps; the grid moves on and `overruns` counts the periods lost. `follow` lets the grid drift towards
    the arrival of the pictures, so that every deadline meets one that is new.
    """

    def __init__(self, period: float) -> None:
        self.period = period
        self.overruns = 0
        self._deadline: float | None = None

    def start(self) -> None:
        """The next deadline is one period after the next call of `next`."""
        self._deadline, self.overruns = None, 0

    def next(self, now: float | None = None) -> float:
        """The end (monotonic s) of the period that begins now."""
        now = time.monotonic() if now is None else now
        if self._deadline is None:
            self._deadline = now
        self._deadline += self.period
        if late := max(0, int((now - self._deadline) / self.period + 1.5)):
            self._deadline += late * self.period
            self.overruns += late
        return self._deadline

    def follow(self, arrival: float) -> None:
        """The picture of this deadline came at `arrival` (monotonic s)."""
        if self._deadline is not None:
            self._deadline += FOLLOW * (arrival - self._deadline)
