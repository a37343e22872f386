"""Ablations of FOSP on SafeReach (section 5.3): its modules, the mix of the data (Figure 6), and its size.

    make experiments EXP=safe_reach_ablations

The protocol and the stages of `safe_reach`, on the hardest task and one more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sim.experiments.contestants import MIXES, MODULES, SIZES
from sim.experiments.safe_reach import SafeReachExperiment


@dataclass
class Ablations(SafeReachExperiment):
    """FOSP as it is beside FOSP without one of its parts, or with other data."""

    methods: tuple[str, ...] = ("fosp", *MODULES, *MIXES, *SIZES)
    tasks: tuple[str, ...] = ("more_obstacles", "random_layout")
    out: Path = Path("runs/experiments/safe_reach")
    """The folder of `safe_reach`, so that FOSP itself is not trained again."""
    name: str = "safe_reach_ablations"
