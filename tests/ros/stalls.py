"""Whether the machine itself stood still: `python -m tests.ros.stalls`.

A virtual machine may lose its processors for a tenth of a second. The watchdogs of the graph then stop the arm, as
they must, and a test of an undisturbed episode fails. Each process here sleeps on one core ahead of everything else, so
that a load on the machine, which the graph has to bear, is not taken for a stall.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

PRIORITY = 90
"""Of SCHED_FIFO: ahead of the graph and of libfranka."""
NAP = 0.003
SHORTEST = 0.03
"""[s] Of a stall that counts: the watchdogs' slack is 50 ms."""


def watch(core: int, parent: int) -> None:
    """Prints the steady time [s] at the end of each stall of this core."""
    os.sched_setaffinity(0, {core})
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    os.write(1, b"0\n")  # at work
    while os.getppid() == parent:
        before = time.monotonic()
        time.sleep(NAP)
        now = time.monotonic()
        if now - before - NAP > SHORTEST:
            os.write(1, f"{now:.3f}\n".encode())


def stalled_between(log: Path, began: float, ended: float) -> bool:
    return any(began <= float(line) <= ended + NAP for line in log.read_text().split())


def main() -> None:
    parent = os.getppid()
    for core in sorted(os.sched_getaffinity(0)):
        if os.fork() == 0:
            watch(core, os.getppid())
            return
    while os.getppid() == parent:
        time.sleep(0.5)
    sys.exit()


if __name__ == "__main__":
    main()
