"""`make faults`: faults injected into the running graph on the FCI-simulated arm, with real processes.

    python -m tests.faults [--runs N] [--only NAME ...] [--soak SECONDS]

Faults meet the times of a real arm's safety gate (safety_gate.yaml); the soak those of a simulated one, as its launch
file has them. Every run is kept in DIR/runs.jsonl; called again, the suite goes on where it was. Needs root for the
full disk and the cut connection.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from robot_bringup.environment import ROOT
from safe_policy_core.errors import UserError
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
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no new run is begun after these")
    parser.add_argument("--verbose", action="store_true", help="say where the time goes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, stream=sys.stderr)
    if unknown := set(arguments.only) - {fault.name for fault in FAULTS}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    if arguments.fresh and arguments.dir.exists():
        shutil.rmtree(arguments.dir)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    chosen = [fault for fault in FAULTS if not arguments.only or fault.name in arguments.only]
    with fault_world(arguments.dir, patient=bool(arguments.soak)) as world:
        if arguments.soak:
            return soak(world, arguments.soak)
        runs = Runs(arguments.dir / "runs.jsonl")
        inject(world, chosen, runs, arguments.runs, time.monotonic() + 60 * arguments.minutes)
    table = runs.table([fault.name for fault in FAULTS])
    write_csv(arguments.out, table)
    arguments.dir.joinpath("summary.md").write_text(markdown(table))
    short = failures(table)
    sys.stdout.write(markdown(table) + "\n" + "\n".join(short or ["every bar is kept"]) + "\n")
    return 1 if short else 0


def inject(world: FaultWorld, faults: list[Fault], runs: Runs, count: int, until: float) -> None:
    """`count` runs of each fault, those done earlier included; the ones that need no policy first.

    Those of the policy take turns, so that a suite that is ended early (until, steady [s]) has as many of each.
    """
    with tqdm(total=sum(max(0, count - runs.count(fault.name)) for fault in faults), desc="faults", unit="run",
              disable=None) as bar:
        for fault in (fault for fault in faults if fault.driver == SENDER and runs.count(fault.name) < count):
            fault.prepare(world)
            while runs.count(fault.name) < count and time.monotonic() < until and one_run(world, fault, runs, bar):
                pass
            fault.remove(world)
        learned = [fault for fault in faults if fault.driver == POLICY and runs.count(fault.name) < count]
        if learned and time.monotonic() < until:
            world.add_episodes()
        for goal in range(1, count + 1):
            for fault in list(learned):
                if runs.count(fault.name) < goal and time.monotonic() < until and not one_run(world, fault, runs, bar):
                    learned.remove(fault)


def one_run(world: FaultWorld, fault: Fault, runs: Runs, bar: tqdm) -> bool:
    """A run that could not be made is tried once more; False when that fails too, and the fault is left out."""
    began = time.monotonic()
    bar.set_postfix_str(fault.name)
    for _ in range(2):
        try:
            outcome = run_once(world, fault, runs.count(fault.name))
            break
        except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError, UserError) as error:
            bar.write(f"{fault.name}: no run: {error}", sys.stderr)
            world.recover(fault.heal)
    else:
        return False
    runs.add(fault.name, outcome)
    bar.write(f"{fault.name}: at rest after {1e3 * outcome.stop:.0f} ms and {1e3 * outcome.path:.1f} mm, "
              f"{outcome.reason or 'no fault at the gate'}, diagnosed {outcome.diagnosed}, re-arm {outcome.rearm}, "
              f"lost {outcome.lost} ({time.monotonic() - began:.1f} s)", sys.stderr)
    bar.update()
    return True


if __name__ == "__main__":
    sys.exit(main())
