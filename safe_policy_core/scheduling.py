"""Processor time for the processes that keep the arm safe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

REALTIME_PRIORITY = 5
"""Of SCHED_FIFO: ahead of every ordinary process and behind libfranka's own real-time thread."""
CAMERA_PRIORITY = 4
"""A picture that comes too late stops the arm. Drawing one takes 4 ms, which everybody below can wait."""
CONTROL_PRIORITY = 3
"""Policy, operator and contact sensors: the gate waits for them at most a step and a half."""
RECORDING_PRIORITY = 2
"""The recorder, and every process's sign of life: an episode ends when it is not recorded any more, or somebody seems
dead. Beside an ordinary process that computes all the time an ordinary recorder was silent for 1.5 s."""
NICENESS = -10
"""Where only this is permitted."""


def come_first(priority: int = REALTIME_PRIORITY) -> None:
    """Gives this process's threads, and those they start, precedence over training and rendering, where permitted.

    Both need root, or an `rtprio` or `nice` line in /etc/security/limits.conf, which libfranka needs on a
    real arm anyway. Call it when everything is loaded: Linux keeps a twentieth of each core free of
    real-time processes, in pieces of 50 ms, and a start-up that computes for a second would make the safety
    gate wait for such a piece.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        _schedule(os.SCHED_FIFO, priority)


def thread_comes_first(priority: int) -> None:
    """The calling thread alone, in a process that is ordinary otherwise."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


def thread_steps_back() -> None:
    """The calling thread alone waits its turn, in a process that comes first otherwise."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def step_back() -> None:
    """This process's threads wait their turn again, as before `come_first`."""
    _schedule(os.SCHED_OTHER, 0)


def _schedule(scheduler: int, priority: int) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setscheduler(int(thread), scheduler, os.sched_param(priority))


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """For long work inside a process that comes first, such as loading weights: this thread waits its turn."""
    scheduler, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    if scheduler == os.SCHED_OTHER:
        yield
        return
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, scheduler, parameter)


@contextlib.contextmanager
def on_simulated_arms_core() -> Iterator[None]:
    """Threads that run or start inside share one core: the simulated arm and its client, one of which always waits.

    1000 times a second each wakes the other, which is dear from core to core of a virtual machine: on one core they
    take 0.76 of it, on two they took 0.91. The thread that calls this goes back to where it was.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
