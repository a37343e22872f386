"""A camera's own clock in the host's time."""

from __future__ import annotations

LIMIT_NS = 500_000_000
"""A frame that seems to have travelled longer than this tells of a clock that was set, not of a slow cable."""
DRIFT = 100e-6
"""Two quartz clocks part by less than this [s/s]."""


class DeviceClock:
    """Maps device times to the host's clock by the quickest journey seen: what arrives is late, never early.

    The smallest difference between arrival and device time is the offset; it is let grow with the drift that two
    clocks may have. A step of either clock, or a recording that starts over, begins anew.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._last_device = 0

    def to_host(self, device_ns: int, arrival_ns: int) -> int:
        """The time of capture on the host's clock [ns], never after `arrival_ns`."""
        passed, self._last_device = device_ns - self._last_device, device_ns
        found = arrival_ns - device_ns
        if self._offset is None or passed < 0 or abs(found - self._offset) > LIMIT_NS:
            self._offset = found
        else:
            self._offset = min(found, self._offset + DRIFT * passed)
        return min(device_ns + round(self._offset), arrival_ns)
