"""Append-only files of JSON objects, one a line: they survive kills and power cuts; several processes may append."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.errors import DatasetError

_TAIL = 1 << 16
_LARGEST = float(np.finfo(np.float32).max)


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends `rows` and waits until they are on disk. All of them or, after a crash, the first few.

    A torn last line was never acknowledged and is cut off first. Raises `DatasetError` when the file
    cannot be written or is a link (it might lead out of the dataset's folder).
    """
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            _cut_torn_line(descriptor, size)
            view = memoryview(text)
            while view:
                view = view[os.write(descriptor, view):]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            _sync_directory(path.parent)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror})") from error


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The objects from byte `offset` on, and the offset after the last whole line; ([], 0) without a file.

    Raises `DatasetError` naming the line when one is no JSON object; a torn last line is left for later.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        file.seek(offset)
        content = file.read()
    whole = content[:content.rfind(b"\n") + 1]
    rows = []
    for number, line in enumerate(whole.split(b"\n")[:-1]):
        where = f"{path}: line {number + 1}" + (f" from byte {offset}" if offset else "")
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{where}: expected a JSON object, got {line[:40]!r}")
        rows.append(row)
    return rows, offset + len(whole)


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number, and one that an episode's float32 fields can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _cut_torn_line(descriptor: int, size: int) -> None:
    end = size
    while end:
        start = max(0, end - _TAIL)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start
        if newline >= 0:
            end = start + newline + 1
            break
    if end < size:
        os.ftruncate(descriptor, end)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
