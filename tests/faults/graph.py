"""The graph of the fault suite: an arm's address of its own, a clock that steps, a small disk."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.faults.clock import SteppedClock
from tests.faults.senders import Sender
from tests.faults.world import FaultWorld, hurry
from tests.ros.graph import ros_graph
from tests.ros.safe_reach_graph import SafeReachGraph, alone

log = logging.getLogger(__name__)
FCI_ADDRESS = "127.0.0.77"
"""Cut off by a route of its own; nothing else may use it."""
DISK = "24m"
"""Size of the file system of the recordings."""


@contextlib.contextmanager
def fault_world(directory: Path) -> Iterator[FaultWorld]:
    """A graph of arm, gate, scene and camera, with the suite's sender in the policy's place."""
    logs, recordings = directory / "logs", directory / "recordings"
    for folder in (logs, recordings):
        folder.mkdir(parents=True, exist_ok=True)
    clock = SteppedClock(logs)
    checkpoint = directory / "checkpoint"
    with alone(), small_disk(recordings), ros_graph(logs) as graph:
        graph.environment |= clock.environment
        running = SafeReachGraph(graph, FCI_ADDRESS)
        running.start_world()
        for process in running.nodes.values():
            hurry(process.pid)
        world = FaultWorld(running, clock, recordings, checkpoint)
        try:
            for name in ("franka", "safety_gate", "scene", "camera"):
                world.await_ready(name)
            world.sender = Sender(graph.domain, world.watch.position)
            yield world
        finally:
            world.close()
            subprocess.run(["ip", "route", "del", "blackhole", f"{FCI_ADDRESS}/32", "table", "local"], check=False,
                           stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system that can be filled without harm, where mounting is permitted."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)],
                             stderr=subprocess.DEVNULL).returncode == 0
    if not mounted:
        log.warning("no small file system could be mounted on %s", folder)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
