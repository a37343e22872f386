"""A long run without a fault, with both cores loaded: the gate may not trip."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from safe_policy_interfaces.msg import GateStatus
from tqdm import tqdm

from tests.faults.system_faults import burners
from tests.faults.world import FaultWorld


def soak(world: FaultWorld, seconds: float) -> int:
    """Episodes of the policy, one after the other, beside one computing process for each core. Returns 1 when the gate
    tripped or an episode was cut short."""
    world.add_episodes()
    world.arm()
    load = burners(os.cpu_count() or 1)
    trips: dict[int, str] = {}
    """By the gate's epoch: every latched fault, also one that was armed away before the next episode."""
    cuts: list[str] = []
    episodes, began, moved = 0, time.monotonic(), 0.0

    def note() -> None:
        world.poll()
        for when, status in world.statuses:
            if when > began and status.state == GateStatus.FAULT and status.epoch not in trips:
                trips[status.epoch] = f"{when - began:.0f} s: {status.reason}"

    try:
        with tqdm(total=round(seconds), desc="soak", unit="s", disable=None) as bar:
            while (passed := time.monotonic() - began) < seconds:
                before = world.watch.position()
                try:
                    world.drive_policy(episodes)
                except RuntimeError as error:
                    cuts.append(f"{passed:.0f} s: {error}")
                note()
                while world.episode is not None and world.episode.is_alive():
                    note()
                    moved += float(abs(world.watch.position() - before).sum())
                    before = world.watch.position()
                    world.episode.join(0.1)
                episodes += 1
                if message := world.result.get("message", ""):
                    cuts.append(f"{passed:.0f} s: {message}")
                note()
                world.make_room()
                if not world.is_armed:
                    world.heal()
                    world.arm()
                bar.n = round(passed)
                bar.set_postfix(episodes=episodes, trips=len(trips))
    finally:
        for burner in load:
            burner.kill()
    result = {"seconds": round(time.monotonic() - began, 1), "episodes": episodes, "metres": round(moved, 2),
              "false_trips": len(trips), "trips": list(trips.values()), "episodes_cut_short": cuts,
              "burners": len(load)}
    Path(world.graph.directory).parent.joinpath("soak.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if trips or cuts else 0
