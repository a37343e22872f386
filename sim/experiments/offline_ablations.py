"""QPT without its parts, with other weights, and with fewer or more candidates (QPT's Table 2, Figure 1, Table 5).

    make experiments EXP=offline_ablations
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safe_policy_core.methods.qpt.config import ABLATIONS
from sim.experiments.offline_safe_rl import OfflineSafeRl


@dataclass
class OfflineAblations(OfflineSafeRl):
    """QPT as it is beside each of its presets."""

    methods: tuple[str, ...] = ("qpt", *(f"qpt:{name}" for name in ABLATIONS))
    datasets: tuple[str, ...] = ("HopperVelocity", "SwimmerVelocity")
    validation: int = 0
    out: Path = Path("results/offline_ablations.csv")
