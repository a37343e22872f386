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
    """Episodes of the policy, one after the other, beside one computing process for each core. Returns 1 for a trip."""
    world.add_episodes()
    world.arm()
    load = burners(os.cpu_count() or 1)
    trips: list[str] = []
    episodes, began, moved = 0, time.monotonic(), 0.0
    try:
        with tqdm(total=round(seconds), desc="soak", unit="s", disable=None) as bar:
            while (passed := time.monotonic() - began) < seconds:
                before = world.watch.position()
                world.drive_policy(episodes)
                while world.episode is not None and world.episode.is_alive():
                    moved += float(abs(world.watch.position() - before).sum())
                    before = world.watch.position()
                    world.episode.join(0.1)
                episodes += 1
                gate = world.gate()
                if gate is None or gate.state == GateStatus.FAULT:
                    trips.append(f"{passed:.0f} s: {gate.reason if gate else 'the gate is silent'}")
                    world.heal()
                    world.arm()
                bar.n = round(passed)
                bar.set_postfix(episodes=episodes, trips=len(trips))
    finally:
        for burner in load:
            burner.kill()
    result = {"seconds": round(time.monotonic() - began, 1), "episodes": episodes, "metres": round(moved, 2),
              "false_trips": len(trips), "trips": trips, "burners": len(load)}
    Path(world.graph.directory).parent.joinpath("soak.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if trips else 0
