"""Removes the shared memory of processes that were killed.

Fast DDS keeps 16 MB and more for each process in /dev/shm and frees it when the process ends by itself; those of
killed nodes stay (9.3 GB were found). The owner of a segment holds a lock on its file `_el` for as long as it lives,
which is how Fast DDS's own tool, `fastdds shm clean`, tells them apart; that needs a module which its wheel does not
bring.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
SETTLED = 10.0
"""[s] Younger files are left alone: between making and locking them they look dead."""
_LOCK = re.compile(r"fastdds_(port\d{1,5}|[0-9a-z]{16})_el")


def remove_dead_segments(folder: Path = SHARED_MEMORY) -> int:
    """Removes what no living process holds. Returns how many bytes were freed."""
    freed = 0
    for lock in folder.glob("fastdds_*_el") if folder.is_dir() else ():
        if _LOCK.fullmatch(lock.name) and _dead(lock):
            segment = lock.with_name(lock.name.removesuffix("_el"))
            for path in (segment, segment.with_name(f"sem.{segment.name}_mutex"), lock):
                try:
                    freed += path.stat().st_blocks * 512
                    path.unlink()
                except OSError:
                    continue  # gone meanwhile, or another user's
    return freed


def _dead(lock: Path) -> bool:
    try:
        if time.time() - lock.stat().st_mtime < SETTLED:
            return False
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
