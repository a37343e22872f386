"""`make faults`: faults injected into the running graph on the FCI-simulated arm, with real processes.

    python -m tests.faults [--runs N] [--only NAME ...] [--soak SECONDS]

Every run is kept in DIR/runs.jsonl; called again, the suite goes on where it was. Needs root for the full disk and
the cut connection.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

from robot_bringup.environment import ROOT
from tests.faults.fault import POLICY, SENDER, Fault, run_once
from tests.faults.graph import fault_world
from tests.faults.soak import soak
from tests.faults.suite import FAULTS
from tests.faults.table import Runs, failures, markdown, write_csv
from tests.faults.world import FaultWorld


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="runs of each fault")
    parser.add_argument("--only", nargs="*", default=[],
                        help="names of faults, of: " + ", ".join(fault.name for fault in FAULTS))
    parser.add_argument("--soak", type=float, default=0.0, help="seconds without a fault, with both cores loaded")
    parser.add_argument("--dir", type=Path, default=ROOT / "runs" / "faults", help="logs and single runs")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "faults.csv", help="the table")
    parser.add_argument("--fresh", action="store_true", help="forget earlier runs")
    parser.add_argument("--verbose", action="store_true", help="say where the time goes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, stream=sys.stderr)
    if unknown := set(arguments.only) - {fault.name for fault in FAULTS}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    if arguments.fresh and arguments.dir.exists():
        shutil.rmtree(arguments.dir)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    chosen = [fault for fault in FAULTS if not arguments.only or fault.name in arguments.only]
    with fault_world(arguments.dir) as world:
        if arguments.soak:
            return soak(world, arguments.soak)
        runs = Runs(arguments.dir / "runs.jsonl")
        inject(world, chosen, runs, arguments.runs)
    table = runs.table([fault.name for fault in FAULTS])
    write_csv(arguments.out, table)
    arguments.dir.joinpath("summary.md").write_text(markdown(table))
    short = failures(table)
    sys.stdout.write(markdown(table) + "\n" + "\n".join(short or ["every bar is kept"]) + "\n")
    return 1 if short else 0


def inject(world: FaultWorld, faults: list[Fault], runs: Runs, count: int) -> None:
    """`count` runs of each fault, those done earlier included; the ones that need no policy first."""
    missing = sum(max(0, count - runs.count(fault.name)) for fault in faults)
    with tqdm(total=missing, desc="faults", unit="run", disable=None) as bar:
        for driver in (SENDER, POLICY):
            todo = [fault for fault in faults if fault.driver == driver and runs.count(fault.name) < count]
            if todo and driver == POLICY:
                world.add_episodes()
            for fault in todo:
                fault.prepare(world)
                for run in range(runs.count(fault.name), count):
                    bar.set_postfix_str(fault.name)
                    began = time.monotonic()
                    outcome = run_once(world, fault, seed=run)
                    runs.add(fault.name, outcome)
                    bar.write(f"{fault.name}: at rest after {1e3 * outcome.stop:.0f} ms and {1e3 * outcome.path:.1f} "
                              f"mm, {outcome.reason or 'no fault at the gate'}, diagnosed {outcome.diagnosed}, re-arm "
                              f"{outcome.rearm}, lost {outcome.lost} ({time.monotonic() - began:.1f} s)", sys.stderr)
                    bar.update()
                fault.remove(world)


if __name__ == "__main__":
    sys.exit(main())
