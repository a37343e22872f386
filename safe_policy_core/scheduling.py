"""Processor time for the processes that keep the arm safe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

REALTIME_PRIORITY = 5
"""Of SCHED_FIFO: ahead of every ordinary process and behind libfranka's own real-time thread."""
CONTROL_PRIORITY = 3
"""Policy, operator and contact sensors: the gate waits for them at most a step and a half."""
CAMERA_PRIORITY = 1
"""A picture that comes too late ends the episode, but drawing one may keep nobody above waiting."""
NICENESS = -10
"""Where only this is permitted."""


def come_first(priority: int = REALTIME_PRIORITY) -> None:
    """Gives this thread, and those it starts, precedence over training and rendering, as far as it is permitted.

    Both need root, or an `rtprio` or `nice` line in /etc/security/limits.conf, which libfranka needs on a
    real arm anyway. Call it before ROS starts: new threads and processes inherit it. Linux keeps
    a twentieth of each core free of real-time processes, so that even a runaway one can be stopped.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """For long work inside a process that comes first, such as loading weights: this thread waits its turn.

    A real-time thread that computes for a second takes the twentieth that is kept free from the safety gate too.
    """
    scheduler, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    if scheduler == os.SCHED_OTHER:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, scheduler, parameter)
