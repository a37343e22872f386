"""Whether the ROS clock, by which commands are stamped, runs as the steady clock does."""

from __future__ import annotations

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict


class ClockGuard:
    """A step of the clock makes old commands look new, or new ones old."""

    def __init__(self, max_step: float) -> None:
        self._max_step = max_step
        self._offset: float | None = None
        self._stepped = 0.0

    def told(self, now: float, clock: float) -> None:
        """Both clocks at one moment [s]."""
        offset = clock - now
        if self._offset is not None and abs(offset - self._offset) > self._max_step:
            self._stepped = offset - self._offset
        self._offset = offset

    def check(self, now: float, drive: Drive) -> Verdict:
        step, self._stepped = self._stepped, 0.0
        return Verdict("clock_step", f"the clock stepped by {step:+.2f} s") if step else CLEAR

    def cause(self, now: float) -> str:
        return ""

    def begin(self, now: float) -> None:
        self._stepped = 0.0
