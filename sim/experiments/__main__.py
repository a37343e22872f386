"""`python -m sim.experiments NAME [OPTIONS]`; `python -m sim.experiments NAME --help` explains one."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Sequence

import tyro

from safe_policy_core.cli import PROCESS_ENVIRONMENT
from safe_policy_core.errors import UserError

EXPERIMENTS = {
    "safe_reach": ("sim.experiments.safe_reach:SafeReachExperiment", "fine-tuning on other tables, FOSP's Table 3"),
    "safe_reach_ablations": ("sim.experiments.safe_reach_ablations:Ablations", "FOSP without one part, or other data"),
    "safety_gymnasium": ("sim.experiments.safety_gymnasium:SafetyGymnasiumExperiment", "FOSP's Tables 1, 2 and 5"),
    "offline_safe_rl": ("sim.experiments.offline_safe_rl:OfflineSafeRl", "methods on DSRL-format datasets"),
    "offline_zero_shot": ("sim.experiments.offline_zero_shot:ZeroShot", "QPT and CDT under other cost thresholds"),
    "offline_ablations": ("sim.experiments.offline_ablations:OfflineAblations", "QPT without a part or other weights"),
    "offline_figures": ("sim.experiments.offline_figures:OfflineFigures", "QPT's Figures 1 and 2, drawn from rows"),
    "sas": ("sim.experiments.sas:SasExperiment", "decision transformers with and without alignment: SAS's tables"),
    "dspo": ("sim.experiments.dspo:DspoExperiment", "learning without cost labels: DSPO's Tables 1 and 2, Figure 4"),
    "dspo_figure3": ("sim.experiments.dspo_figure3:Figure3", "DSPO's two-dimensional example as a picture"),
}
"""Name -> ("module:Class", what it is). The class is a dataclass with `run() -> dict`."""


def main(arguments: Sequence[str]) -> int:
    """Runs one experiment. Returns the exit code: 1 where some of its runs failed, 2 for an error that a person can
    mend."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if not arguments or arguments[0] not in EXPERIMENTS:
        known = "\n".join(f"  {name:<20} {text}" for name, (_, text) in EXPERIMENTS.items())
        sys.stderr.write(f"usage: python -m sim.experiments NAME [OPTIONS]\n\n{known}\n")
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    module, _, name = EXPERIMENTS[arguments[0]][0].partition(":")
    experiment = getattr(importlib.import_module(module), name)
    try:
        result = tyro.cli(experiment, args=list(arguments[1:]), prog=f"python -m sim.experiments {arguments[0]}").run()
    except UserError as error:
        sys.stderr.write(f"experiments: {error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 1 if result.get("failed") else 0


if __name__ == "__main__":
    missing = {name: value for name, value in PROCESS_ENVIRONMENT.items() if name not in os.environ}
    if missing:
        # They only count when set before a process starts.
        os.execve(sys.executable, [sys.executable, "-m", "sim.experiments", *sys.argv[1:]], dict(os.environ) | missing)
    sys.exit(main(sys.argv[1:]))
