"""A system clock that can be stepped for the processes of one graph."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class SteppedClock:
    """`environment` makes a process follow it; `step` moves it for all of them at once.

    What it covers: every stamp and age that the nodes take from their ROS clock or from Python. What it does not: the
    middleware's own clock, which stays.
    """

    def __init__(self, directory: Path) -> None:
        self._library, file = directory / "clock.so", directory / "clock_offset"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl", "-lm"],
                       check=True)
        file.write_bytes(struct.pack("d", 0.0))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(self._library), "SAFE_POLICY_CLOCK": str(file)}

    def step(self, seconds: float) -> None:
        """The clock is `seconds` away from the machine's from now on."""
        self._memory[:8] = struct.pack("d", seconds)
