"""What a fault is, and one run of it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from safe_policy_interfaces.msg import GateStatus

from tests.faults.world import FaultWorld
from tests.ros.graph import wait_for

log = logging.getLogger(__name__)
SENDER, POLICY = "sender", "policy"
DIAGNOSIS = 3.0
"""[s] How long the cause may take to appear in /diagnostics."""
STILL = 0.005
"""[m] What the arm may creep after it was called at rest, until it is armed again."""

MADE_TO_MOVE = 0.1
"""[s] At least so long before the damage the gate was armed and the arm moved."""
TOLERANCE = 0.03
"""[s] The graph may know of a second publisher this much earlier than the suite knows that it does."""

Action = Callable[[FaultWorld], float | None]


@dataclass(frozen=True)
class Fault:
    """driver: who moves the arm. inject: does the damage while it moves; returns when (steady [s]), None for now.

    cause: pattern that a line of /diagnostics has to match. heal: undoes the damage; dead processes are started
    anew in any case. told: the damage is refused with a message, and inject returns once it has seen it.
    prepare, remove: frame all runs of the fault. moving: the arm moves when the damage is done.
    """

    name: str
    driver: str
    inject: Action
    cause: str
    heal: Action = lambda world: None
    told: bool = False
    prepare: Action = lambda world: None
    remove: Action = lambda world: None
    moving: bool = True


@dataclass(frozen=True)
class Outcome:
    """stop: seconds until the arm was at rest; path: metres it went meanwhile; line: the diagnosis that was found."""

    stop: float
    path: float
    lost: int
    diagnosed: bool
    rearm: bool
    reason: str
    line: str


def run_once(world: FaultWorld, fault: Fault, seed: int) -> Outcome:
    """Drives the arm, injects the fault, watches, heals. Raises `RuntimeError` for a run that says nothing: something
    else had stopped the arm before."""
    began = time.monotonic()
    world.arm()
    if fault.driver == SENDER:
        world.drive_sender()
    else:
        world.drive_policy(seed)
    before = time.monotonic()
    when = fault.inject(world)
    when = before if when is None else when
    stop, path = world.watch.rest_after(when)
    if fault.moving and (other := _stopped_before(world, before, when, stop)):
        raise RuntimeError(other)
    pattern = re.compile(fault.cause)
    deadline = before + DIAGNOSIS
    while not (line := world.diagnosed(pattern, before)) and not fault.told and time.monotonic() < deadline:
        time.sleep(0.05)
    world.poll()
    reason = next((s.reason for t, s in reversed(world.statuses) if t >= before and s.reason), "")
    where = world.watch.position()
    healing = time.monotonic()
    fault.heal(world)
    world.heal()
    if world.sender is not None:
        world.sender.change = None  # it goes on with commands that are in order
    wait_for(lambda: world.gate() is not None, 10.0, "the gate speaks")
    time.sleep(0.3)
    moved = float(abs(world.watch.position() - where).max())
    gate = world.gate()
    rearm = gate is not None and gate.state in (GateStatus.FAULT, GateStatus.DISARMED) and moved < STILL
    ending = time.monotonic()
    world.end_episode()
    log.info("%s: %.1f s to drive, %.1f s to watch, %.1f s to heal, %.1f s to end", fault.name, before - began,
             healing - before, ending - healing, time.monotonic() - ending)
    lost = world.lost_episodes() + (not world.readable())
    world.make_room()
    return Outcome(stop, path, lost, bool(line) or fault.told, rearm, reason, line)


def _stopped_before(world: FaultWorld, before: float, when: float, stop: float) -> str:
    """What stopped the arm before the fault came at `when` (steady [s]), or ""."""
    world.poll()
    latched = next((s.reason for t, s in world.statuses
                    if before - MADE_TO_MOVE < t < when - TOLERANCE and s.state == GateStatus.FAULT), "")
    if latched:
        return f"the gate had stopped the arm before: {latched}"
    return "" if stop > 0 else "the arm was at rest before the fault came"
