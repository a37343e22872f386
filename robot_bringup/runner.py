"""Starts the processes of a launch file and stops them together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

from robot_bringup.launch_file import Process

GRACE = (("SIGINT", 6.0), ("SIGTERM", 4.0), ("SIGKILL", 2.0))
"""Signals to a process that should stop, and how long each may take [s]."""
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Runner:
    """Runs processes, each in a process group of its own, with its name before every line it prints.

    When a required process ends, all others are stopped and its exit code becomes the result.
    """

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._width = max((len(p.name) for p in processes), default=0)

    async def run(self) -> int:
        """Until a required process ends (its exit code) or a signal comes (130 for Ctrl-C, 143 for SIGTERM)."""
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[int] = loop.create_future()

        def stop(code: int) -> None:
            if not stopped.done():
                stopped.set_result(code)

        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            loop.add_signal_handler(number, stop, code)
        watchers = []
        try:
            for index, process in enumerate(self._processes):
                watchers.append(asyncio.create_task(self._watch(process, index, stop)))
            return await stopped
        finally:
            await self._stop_all()
            for watcher in watchers:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait_for(watcher, 5)

    async def _watch(self, process: Process, index: int, stop: Callable[[int], None]) -> None:
        prefix = self._prefix(process.name, index)
        try:
            child = await asyncio.create_subprocess_exec(
                *process.command, env=process.environment, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True)
        except OSError as error:
            self._say(prefix, f"cannot start {process.command[0]}: {error.strerror}")
            stop(127)
            return
        self._running[process.name] = child
        assert child.stdout is not None
        copying = asyncio.create_task(self._copy(child.stdout, prefix))
        code = await child.wait()
        self._running.pop(process.name, None)
        # What it started and left behind is in its group, and may hold the pipe open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await copying
        # A shell's convention for a death by signal, so that the caller can tell it from an exit code.
        code = 128 - code if code < 0 else code
        if process.required:
            self._say(prefix, f"ended with exit code {code}; stopping everything")
            stop(code)
        else:
            self._say(prefix, f"ended with exit code {code}")

    async def _copy(self, stream: asyncio.StreamReader, prefix: str) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the stream's buffer: that part is dropped, the process must not block
                continue
            if not line:
                return
            self._say(prefix, line.decode(errors="replace").rstrip("\n"))

    async def _stop_all(self) -> None:
        for name, patience in GRACE:
            if not self._running:
                return
            for child in list(self._running.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, getattr(signal, name))
            deadline = asyncio.get_running_loop().time() + patience
            while self._running and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.02)

    def _prefix(self, name: str, index: int) -> str:
        text = f"[{name:<{self._width}}]"
        return f"\033[{_COLOURS[index % len(_COLOURS)]}m{text}\033[0m" if sys.stdout.isatty() else text

    @staticmethod
    def _say(prefix: str, line: str) -> None:
        sys.stdout.write(f"{prefix} {line}\n")
        sys.stdout.flush()
