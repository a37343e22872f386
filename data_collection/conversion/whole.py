"""Files and folders that are there whole or not at all, whatever ends the program that writes them."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".tmp"
LEFT_BEHIND = 3600.0
"""[s] A hidden name that nobody has touched for so long belongs to a program that was killed."""


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write to; it becomes `path` when the block ends well, else it goes away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        yield hidden
        os.replace(hidden, path)
    finally:
        _remove(hidden)


def remove_left_behind(folder: Path) -> list[Path]:
    """Removes what killed programs were writing in `folder`, and returns it. Dataset tools never look at it."""
    if not folder.is_dir():
        return []
    left = [path for path in folder.iterdir() if path.name.startswith(".") and _SUFFIX in path.suffixes[-2:]
            and time.time() - path.lstat().st_mtime > LEFT_BEHIND]
    for path in left:
        _remove(path)
    return left


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
