"""The state of the scene in shared memory: one writer that never waits, any number of readers.

A seqlock (as in the Linux kernel): the sequence number is odd while the writer writes, and a reader
that sees it odd or changed reads again. Written by the 1 kHz loop, read by camera and labels.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_policy_core.errors import RobotUnavailableError
from sim.safe_reach import task

QPOS_SIZE = 9 + 7 * task.MAX_OBSTACLES
"""Arm, fingers and obstacles (position and quaternion each)."""
_MAGIC = 0x5AFE0002
"""Changes with the layout of `_RECORD`: a reader of another version refuses."""
_RECORD = np.dtype([
    ("magic", "u4"), ("generation", "u4"), ("sequence", "u8"), ("steps", "u8"), ("time_ns", "i8"),
    ("monotonic_ns", "i8"), ("qpos", "f8", (QPOS_SIZE,)), ("target", "f8", (7,)), ("tool", "f8", (7,)),
    ("shapes", "i4", (task.MAX_OBSTACLES + 1,)), ("cost", "u1"), ("touching", "u1"),
    ("cost_onsets", "u4"), ("touch_onsets", "u4")])
_INTEGERS = ("generation", "steps", "time_ns", "monotonic_ns", "cost_onsets", "touch_onsets")
_READ_TIMEOUT = 1.0


@dataclass(frozen=True)
class Snapshot:
    """The scene at one moment.

    generation: how many layouts were placed. steps: milliseconds that the simulation has run.
    time_ns: system time; monotonic_ns: `time.monotonic_ns` of the same moment, for watchdogs.
    qpos (37,): MuJoCo positions. target, tool (7,): position [m] and quaternion; target as MuJoCo has
    it (w, x, y, z), tool (x, y, z, w). shapes: see `Scene.shapes`. cost, touching, cost_onsets,
    touch_onsets: see `ContactMonitor`; the onsets count from the last placement.
    """

    generation: int
    steps: int
    time_ns: int
    monotonic_ns: int
    qpos: np.ndarray
    target: np.ndarray
    tool: np.ndarray
    shapes: np.ndarray
    cost: bool
    touching: bool
    cost_onsets: int
    touch_onsets: int


def memory_path(port: int) -> Path:
    """The file behind the shared memory of the server whose link listens on `port`."""
    directory = Path("/dev/shm")
    return (directory if directory.is_dir() else Path("/tmp")) / f"safe_reach_{os.getuid()}_{port}"


class SnapshotWriter:
    """Creates the shared memory; `remove` deletes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)  # left by a server that was killed
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, _RECORD.itemsize)
            self._memory = mmap.mmap(descriptor, _RECORD.itemsize)
        finally:
            os.close(descriptor)
        self._record = np.frombuffer(self._memory, _RECORD)
        self._record["magic"] = _MAGIC
        self._scalars = {name: self._record[name] for name in _RECORD.names}

    def write(self, **fields: object) -> None:
        """Publishes the given fields as one consistent snapshot."""
        record = self._scalars
        record["sequence"][0] += 1
        for name, value in fields.items():
            record[name][0] = value
        record["time_ns"][0], record["monotonic_ns"][0] = time.time_ns(), time.monotonic_ns()
        record["sequence"][0] += 1

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


class SnapshotReader:
    """Reads the newest snapshot. Raises `RobotUnavailableError` where there is no such memory."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._memory = mmap.mmap(file.fileno(), _RECORD.itemsize, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise RobotUnavailableError(f"scene snapshot {path}: cannot be read ({error}); is the server running?"
                                        ) from error
        self._record = np.frombuffer(self._memory, _RECORD)
        if self._record["magic"][0] != _MAGIC:
            raise RobotUnavailableError(f"scene snapshot {path}: written by another version of the server; restart it")

    def read(self) -> Snapshot:
        """A consistent copy. Raises `RobotUnavailableError` when the writer died in the middle of writing."""
        deadline = time.monotonic() + _READ_TIMEOUT
        while time.monotonic() < deadline:
            before = int(self._record["sequence"][0])
            copy = self._record[0].copy()
            if before % 2 == 0 and int(self._record["sequence"][0]) == before:
                numbers = {name: int(copy[name]) for name in _INTEGERS}
                arrays = {name: copy[name].copy() for name in ("qpos", "target", "tool", "shapes")}
                return Snapshot(**numbers, **arrays, cost=bool(copy["cost"]), touching=bool(copy["touching"]))
            time.sleep(0.0002)
        raise RobotUnavailableError("scene snapshot: half written for a second; the server died, restart it")
