"""Processor time for the processes that keep the arm safe."""

from __future__ import annotations

import contextlib
import os

NICENESS = -10
"""Ahead of training and rendering, behind libfranka's own real-time thread."""


def come_first() -> None:
    """Gives this process's threads precedence where that is permitted (root, or a `nice` line in limits.conf).

    Call it before ROS starts: Linux keeps the niceness per thread, and new threads inherit it.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
