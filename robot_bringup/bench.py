"""`make bench`: every speed figure that the project states, measured here and now.

Writes results/bench.json: a header row with the machine and versions, then rows of
{name, value, unit, peer, peer_value, ratio}. `ratio` is value over peer_value, measured in the
same run; null where there is no peer.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

MODULES = ("sim.safe_reach.benchmark", "safe_policy_core.benchmark",
           "safe_policy_core.methods.fosp.benchmark", "safe_policy_core.methods.dspo.benchmark",
           "safe_policy_core.methods.sas.benchmark", "data_collection.benchmark", "sim.osrl_peer.timing",
           "safe_policy_ros.benchmark", "safe_policy_ros.latency_benchmark")
PACKAGES = ("torch", "numpy", "mujoco", "franky-control", "franky-sim", "h5py", "mcap", "ros-kilted-rclpy")


def header() -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())
    return {"name": "header", "machine": cpu, "cores": os.cpu_count(), "system": platform.platform(),
            "python": platform.python_version(), "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only modules whose name contains this")
    parser.add_argument("--out", type=Path, default=Path("results/bench.json"))
    arguments = parser.parse_args()
    rows, failed = [header()], []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in MODULES:
        if arguments.only in name:
            try:
                found = list(importlib.import_module(name).rows())
            except Exception:
                # Minutes of other figures are not lost for one that cannot be measured.
                traceback.print_exc()
                failed.append(name)
                continue
            for row in found:
                rows.append({key: row.get(key) for key in ("name", "value", "unit", "peer", "peer_value", "ratio")})
                versus = f"   {row['ratio']:.2f} x {row['peer']}" if row.get("ratio") else ""
                print(f"{row['name']:<58} {row['value']:>10.4g} {row['unit']}{versus}", flush=True)
            arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{arguments.out}: {len(rows) - 1} figures")
    if failed:
        sys.exit(f"not measured, their errors are above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
