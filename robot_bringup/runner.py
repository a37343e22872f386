"""Starts the processes of a launch file and stops them together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from robot_bringup.launch_file import Process

GRACE = ((signal.SIGINT, 6.0), (signal.SIGTERM, 4.0), (signal.SIGKILL, 2.0))
"""Signals to processes that should stop, and how long they may take [s]."""
POLL_PERIOD = 0.02
"""[s]."""
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Runner:
    """Runs processes, each in a process group of its own, with its name before every line it prints.

    When a required process ends, all others are stopped and its exit code becomes the result.
    """

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._readers: list[threading.Thread] = []
        self._result: int | None = None
        self._width = max((len(p.name) for p in processes), default=0)
        self._writing = threading.Lock()

    def run(self) -> int:
        """Until a required process ends (its exit code) or a signal comes (130 for Ctrl-C, 143 for SIGTERM)."""
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            signal.signal(number, lambda *_, code=code: self._finish(code))
        try:
            for index, process in enumerate(self._processes):
                self._start(process, index)
            while self._result is None and self._running:
                self._reap()
                time.sleep(POLL_PERIOD)
        finally:
            self._stop_all()
            for reader in self._readers:
                reader.join(2)
        return 0 if self._result is None else self._result

    def _finish(self, code: int) -> None:
        if self._result is None:
            self._result = code

    def _start(self, process: Process, index: int) -> None:
        say = self._speaker(process.name, index)
        try:
            child = subprocess.Popen(process.command, env=process.environment, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            say(f"cannot start {process.command[0]}: {error.strerror}")
            self._finish(127)
            return
        self._running[process.name] = child
        assert child.stdout is not None
        reader = threading.Thread(target=_copy, args=(child.stdout, say), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _reap(self) -> None:
        """Notes what ended. One that belongs to the launch file and is required ends everything."""
        for process in self._processes:
            child = self._running.get(process.name)
            if child is None or child.poll() is None:
                continue
            del self._running[process.name]
            # What it started and left behind is in its group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if self._result is None:
                # A shell's convention for a death by signal, so that the caller can tell it from an exit code.
                code = child.returncode if child.returncode >= 0 else 128 - child.returncode
                ending = "; stopping everything" if process.required else ""
                self._speaker(process.name)(f"ended with exit code {code}{ending}")
                if process.required:
                    self._finish(code)

    def _stop_all(self) -> None:
        self._finish(0)
        for number, patience in GRACE:
            for child in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, number)
            deadline = time.monotonic() + patience
            while self._running and time.monotonic() < deadline:
                self._reap()
                time.sleep(POLL_PERIOD)

    def _speaker(self, name: str, index: int = 0) -> Callable[[str], None]:
        prefix = f"[{name:<{self._width}}]"
        if sys.stdout.isatty():
            prefix = f"\033[{_COLOURS[index % len(_COLOURS)]}m{prefix}\033[0m"

        def say(line: str) -> None:
            with self._writing:
                sys.stdout.write(f"{prefix} {line}\n")
                sys.stdout.flush()

        return say


def _copy(stream: IO[bytes], say: Callable[[str], None]) -> None:
    for line in stream:
        say(line.decode(errors="replace").rstrip("\n"))
