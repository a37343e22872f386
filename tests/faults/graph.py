"""The graph of the fault suite: an arm's address of its own, a clock that steps, a small disk."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.faults.cable import Cable
from tests.faults.clock import SteppedClock
from tests.faults.senders import Sender
from tests.faults.world import FaultWorld, hurry
from tests.ros.graph import ros_graph
from tests.ros.safe_reach_graph import REAL_GATE, SIMULATED_GATE, SIMULATED_PATIENCE, SafeReachGraph, alone

log = logging.getLogger(__name__)
FCI_ADDRESS = "127.0.0.77"
"""May be cut off; nothing else may use it."""
DISK = "24m"
"""Size of the file system of the recordings."""


@contextlib.contextmanager
def fault_world(directory: Path, patient: bool = False) -> Iterator[FaultWorld]:
    """A graph of arm, gate, scene and camera, with the suite's sender in the policy's place.

    patient: with the times of a simulated arm, which shares the machine with the graph; otherwise those of a real one.
    """
    logs, recordings = directory / "logs", directory / "recordings"
    for folder in (logs, recordings):
        folder.mkdir(parents=True, exist_ok=True)
    clock = SteppedClock(logs)
    checkpoint = directory / "checkpoint"
    with alone(), small_disk(recordings), ros_graph(logs) as graph:
        graph.environment |= clock.environment
        running = SafeReachGraph(graph, FCI_ADDRESS, SIMULATED_GATE if patient else REAL_GATE)
        running.start_world()
        for name, process in running.nodes.items():
            if name != "server":  # it is there already, ahead of all
                hurry(process.pid)
        world = FaultWorld(running, clock, recordings, checkpoint, SIMULATED_PATIENCE if patient else 1.0)
        try:
            for name in ("franka", "safety_gate", "scene", "camera"):
                world.await_ready(name)
            world.sender = Sender(graph.domain, world.watch.position)
            yield world
        finally:
            world.close()
            Cable(FCI_ADDRESS).join()


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
