"""Work on files that may crash the libraries which read them: in processes with bounded memory and time."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

MAX_MEMORY = 8 << 30
"""[bytes] Address space of a worker."""
MAX_SECONDS = 60
"""[s] Processor time for one file."""
CRASHED = f"crashes its reader, or takes more than {MAX_SECONDS} s: remove it"


def in_workers(work: Callable[[Path], T], paths: Iterable[Path], workers: int, behind: bool = False, batch: int = 1
               ) -> Iterator[tuple[Path, T | None]]:
    """(path, what `work` gives for it) in the order of `paths`; None for a file that ends its process.

    work: a function of a module, because its name goes to other processes. Workers are forked at the first step.
    behind: let everything else on this machine go first. batch: files that a worker answers for at once; it waits after
    each answer when another thread keeps this process busy.
    """
    pending = list(paths)
    while pending:
        done = 0
        with _Pool(workers, behind) as pool:
            futures = [pool.submit(_timed, work, pending[first:first + batch])
                       for first in range(0, len(pending), batch)]
            try:
                for future in futures:
                    for result in future.result():
                        done += 1
                        yield pending[done - 1], result
            except BrokenProcessPool:
                pass
        # A worker died over one of the first that are left. Those get a process each.
        end = done + max(4, batch) * workers
        alone, pending = pending[done:end], pending[end:]
        for path in alone:
            yield path, _alone(work, path, behind)


class _Pool(ProcessPoolExecutor):
    """Does not wait, at its end, for what nobody asks for any more."""

    def __init__(self, workers: int, behind: bool) -> None:
        super().__init__(workers, initializer=_limit, initargs=(behind,))

    def __exit__(self, *_: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def _alone(work: Callable[[Path], T], path: Path, behind: bool) -> T | None:
    with _Pool(1, behind) as pool:
        try:
            return pool.submit(_timed, work, [path]).result()[0]
        except BrokenProcessPool:
            return None


def _limit(behind: bool) -> None:
    os.nice(10 if behind else 0)
    # What a damaged file makes the libraries say to the terminal would tear the progress bar and the list.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    _close_sockets()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY if hard < 0 else min(MAX_MEMORY, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _close_sockets() -> None:
    """A connection ends for the other side only when every process that has it has closed it."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.close(int(name))


def _timed(work: Callable[[Path], T], paths: list[Path]) -> list[T]:
    return [_in_time(work, path) for path in paths]


def _in_time(work: Callable[[Path], T], path: Path) -> T:
    # Kills this process when it is over: a library that hangs does not return to Python for an exception.
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS)
    try:
        return work(path)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
