"""This computer: kernel, scheduling, disk, clock."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from robot_bringup.preflight.check import Check, green, red

GIGABYTE = 1e9
EPISODE_SIZE = 0.07
"""[GB] An 80-step episode with 640x480 pictures, as recorded."""
TIME_ERROR = 5
"""What adjtimex returns for a clock that nothing keeps in step."""
_STA_UNSYNC = 0x40
_MAX_ERROR_OFFSET, _STATUS_OFFSET, _TIMEX_SIZE = 24, 40, 256
"""Of struct timex on 64-bit Linux [bytes]; the size leaves room."""


def realtime_kernel(flag: Path = Path("/sys/kernel/realtime"), release: str = "",
                    priority_limit: int | None = None) -> Check:
    """libfranka misses its 1 ms cycle on an ordinary kernel. priority_limit: this user's RLIMIT_RTPRIO."""
    name = "real-time kernel"
    release = release or platform.release()
    if not (flag.exists() and flag.read_text().strip() == "1"):
        return red(name, f"{release} is no PREEMPT_RT kernel",
                   "boot one (Ubuntu: `sudo pro enable realtime-kernel`, Debian: `sudo apt install "
                   "linux-image-rt-amd64`)")
    if priority_limit is None:
        priority_limit = 99 if os.geteuid() == 0 else resource.getrlimit(resource.RLIMIT_RTPRIO)[1]
    if priority_limit != resource.RLIM_INFINITY and priority_limit < 80:
        return red(name, f"{release}, but this user may use real-time priorities up to {priority_limit} only",
                   "add `@realtime - rtprio 99` to /etc/security/limits.conf, join the group, log in again")
    return green(name, f"{release}, real-time priorities permitted")


def disk_space(directory: Path, episodes: int, free: float | None = None) -> Check:
    """directory: where episodes are recorded; free [GB]."""
    name = "disk space"
    existing = next(folder for folder in (directory, *directory.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / GIGABYTE if free is None else free
    needed = episodes * EPISODE_SIZE + 2
    found = f"{free:.1f} GB free in {existing}, {needed:.1f} GB wanted for {episodes} episodes"
    return green(name, found) if free >= needed else red(name, found, "free some, or record into another --directory")


@dataclass(frozen=True)
class ClockState:
    """synchronised: something keeps the kernel's clock in step. max_error [s]: the kernel's bound on its error."""

    synchronised: bool
    max_error: float


def kernel_clock() -> ClockState:
    """From adjtimex(2): whatever keeps the time, chrony, ntpd, PTP or systemd, tells the kernel."""
    state = ctypes.create_string_buffer(_TIMEX_SIZE)  # modes 0: only reads
    code = ctypes.CDLL(None, use_errno=True).adjtimex(state)
    if code < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    status = ctypes.c_int.from_buffer(state, _STATUS_OFFSET).value
    error = ctypes.c_long.from_buffer(state, _MAX_ERROR_OFFSET).value
    return ClockState(code != TIME_ERROR and not status & _STA_UNSYNC, error * 1e-6)


def clock(state: ClockState, tolerance: float = 0.1) -> Check:
    """Stamps of two machines, and of the camera's device clock, are compared with each other [s]."""
    name = "clock"
    remedy = "start chrony or systemd-timesyncd (`sudo timedatectl set-ntp true`) and wait a minute"
    if not state.synchronised:
        return red(name, "nothing keeps the clock in step (kernel: unsynchronised)", remedy)
    if state.max_error > tolerance:
        return red(name, f"in step, but the error may be {state.max_error:.2f} s", remedy)
    return green(name, f"in step, error at most {state.max_error * 1e3:.0f} ms")
