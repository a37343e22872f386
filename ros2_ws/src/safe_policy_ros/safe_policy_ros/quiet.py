"""Keeps Python's garbage collector out of the control loop."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No cyclic collection inside; one before, one after.

    With torch loaded a full collection walks a few hundred thousand objects and holds the
    interpreter for a good part of a control period. Reference counting goes on as ever, and an
    episode lasts seconds, so nothing piles up.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
