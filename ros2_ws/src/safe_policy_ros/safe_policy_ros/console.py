"""The operator's keys while a session runs in a terminal: labels, abort, pause."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

from data_collection.devices.keyboard import Terminal

log = logging.getLogger(__name__)

LABEL_TIME = 0.3
"""[s] How long a key's label holds: three control steps, so that no step misses it."""
LABELS = {"1": "reward", "2": "cost", "x": "abort", "\x1b": "abort"}
HELP = "keys: 1 reward, 2 cost, x or Esc abort the episode, p pause after it and go on, q stop after it"

Label = Callable[[str, float], None]
"""(kind, level) -> sets it."""


class OperatorConsole:
    """Reads keys whenever it is polled; never blocks. `label` sets a label's level.

    terminal: None where no person sits; then no key is ever pressed.
    """

    def __init__(self, terminal: Terminal | None, label: Label) -> None:
        self._terminal, self._label = terminal, label
        self._held: dict[str, float] = {}
        self.paused = self.stopped = False
        if terminal is not None:
            log.info(HELP)

    @classmethod
    def of_this_process(cls, label: Label) -> OperatorConsole:
        """On standard input where that is a terminal and this process is in its foreground: one in the background
        that touches it would be stopped by the kernel."""
        if sys.stdin is None or not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
            return cls(None, label)
        return cls(Terminal(sys.stdin.fileno()), label)

    def poll(self, now: float) -> None:
        """Takes the keys that were pressed; now [s, steady clock]."""
        typed = self._terminal.read().decode(errors="ignore") if self._terminal is not None else ""
        for key in typed.lower():
            if kind := LABELS.get(key):
                if kind not in self._held:
                    self._label(kind, 1.0)
                self._held[kind] = now
            elif key == "p":
                self.paused = not self.paused
                log.info("pause after this episode" if self.paused else "going on")
            elif key == "q":
                self.stopped = True
                log.info("stop after this episode")
        for kind, pressed in list(self._held.items()):
            if now - pressed > LABEL_TIME:
                del self._held[kind]
                self._label(kind, 0.0)

    def wait_while_paused(self) -> None:
        """Blocks between episodes until `p` is pressed again, or `q`."""
        while self.paused and not self.stopped:
            time.sleep(0.1)
            self.poll(time.monotonic())

    def close(self) -> None:
        """Ends labels and gives the terminal back."""
        for kind in self._held:
            self._label(kind, 0.0)
        self._held.clear()
        if self._terminal is not None:
            self._terminal.close()
