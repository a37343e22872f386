"""Metrics as TensorBoard event files, beside the JSON lines, where the tensorboard package is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
"""Of the event files, beside the JSON lines; `tensorboard --logdir RUN` finds it."""
FLUSH_PERIOD = 5
"""[s] How late a curve may be, and what a killed run loses of it; the JSON lines lose nothing."""


class Events:
    """Writes numbers by name and step. Does nothing where tensorboard is not installed: the core does not need it.

    log: the JSON lines. begin: steps that are done already; what an interrupted run showed after them is hidden.
    """

    def __init__(self, log: Path, begin: int = 0) -> None:
        self._writer: Any = None
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(log.parent / FOLDER), purge_step=begin + 1 if begin else None,
                                         flush_secs=FLUSH_PERIOD)

    def add(self, step: int, metrics: Mapping[str, Any], group: str) -> None:
        """group: heading under which they stand. What is no number is left out."""
        if self._writer is not None:
            for name, value in metrics.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{group}/{name}", float(value), step)

    def flush(self) -> None:
        """For rows that come seldom."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
