"""Whether the ROS clock, by which commands are stamped, runs as the steady clock does."""

from __future__ import annotations

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict


class ClockGuard:
    """A step of the clock makes old commands look new, or new ones old."""

    def __init__(self, max_step: float) -> None:
        self._max_step = max_step
        self._offset: float | None = None
        self.stepped = 0.0
        """[s] The step that was seen since the last question, 0 for none."""

    def told(self, now: float, clock: float) -> None:
        """Both clocks at one moment [s]."""
        offset = clock - now
        if self._offset is not None and abs(offset - self._offset) > self._max_step:
            self.stepped = offset - self._offset
        self._offset = offset

    @property
    def detail(self) -> str:
        return f"the clock stepped by {self.stepped:+.2f} s"

    def check(self, now: float, drive: Drive) -> Verdict:
        detail, stepped = self.detail, self.stepped
        self.stepped = 0.0
        return Verdict("clock_step", detail) if stepped else CLEAR

    def cause(self, now: float) -> str:
        return ""

    def begin(self, now: float) -> None:
        self.stepped = 0.0
