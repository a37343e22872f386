"""How a camera does: for the diagnostics once a second, and for the log at the end."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray

from safe_policy_ros import health
from safe_policy_ros.cameras.frozen import Seen

SLOW = 0.8
"""Share of the wanted rate below which the diagnostics warn."""


class FrameRecord:
    """fps [1/s]: the rate that was asked for. Times are steady seconds where not said otherwise."""

    def __init__(self, fps: float) -> None:
        self.trouble = ""
        """Why there is no camera at present; set by the owner."""
        self.repeated_in_a_row = 0
        self._fps = fps
        self._frames = self._lost = self._repeated = 0
        self._first = self._last = 0.0
        self._gap = 0.0
        self._begin(None)

    def _begin(self, now: float | None) -> None:
        self._since, self._recent, self._recent_gap, self._delay = now, 0, 0.0, 0.0

    def add(self, seen: Seen, now: float, captured_ns: int, arrived_ns: int) -> None:
        """captured_ns, arrived_ns: of the frame, both on the system's clock."""
        if self._frames:
            gap = now - self._last
            self._gap, self._recent_gap = max(self._gap, gap), max(self._recent_gap, gap)
        else:
            self._first = now
        self._frames, self._recent, self._last = self._frames + 1, self._recent + 1, now
        self._lost += seen.lost
        self._repeated += seen.repeated
        self.repeated_in_a_row = self.repeated_in_a_row + 1 if seen.repeated else 0
        self._delay = max(self._delay, (arrived_ns - captured_ns) * 1e-9)

    def due(self, now: float, period: float) -> bool:
        if self._since is None:
            self._begin(now)
            return False
        return now - self._since >= period

    def report(self, kind: str, now_ns: int) -> DiagnosticArray:
        """ERROR for a camera that is lost, silent or frozen, WARN for a slow one. Starts a new period of `due`."""
        # The frames of the period over its nominal length would wobble by one; the gap tells of stutter.
        rate = (self._frames - 1) / (self._last - self._first) if self._last > self._first else 0.0
        level, message = health.OK, "pictures come"
        if self.trouble:
            level, message = health.ERROR, self.trouble
        elif not self._recent:
            level, message = health.ERROR, "no picture for a second"
        elif self.repeated_in_a_row:
            level, message = health.ERROR, f"frozen: the same picture {self.repeated_in_a_row + 1} times"
        elif self._recent < SLOW * self._fps:
            level, message = health.WARN, f"{self._recent} pictures a second, asked for {self._fps:g}"
        values = {"camera": kind, "frames": self._frames, "frames_last_second": self._recent, "rate_hz": rate,
                  "lost": self._lost, "repeated": self._repeated, "gap_max_ms": 1e3 * self._recent_gap,
                  "capture_to_read_max_ms": 1e3 * self._delay}
        assert self._since is not None
        self._begin(self._since + 1.0)
        return health.health_message("camera", level, message, values, now_ns)

    def summary(self) -> str:
        """One line for the end, "" after fewer than two pictures."""
        span = self._last - self._first
        if self._frames < 2 or span <= 0:
            return ""
        return (f"{self._frames} pictures in {span:.1f} s: {(self._frames - 1) / span:.1f} a second, longest gap "
                f"{self._gap * 1000:.0f} ms, {self._lost} lost, {self._repeated} repeated")
