"""Cost thresholds that change without training: QPT beside CDT (QPT's Figure 2).

    make experiments EXP=offline_zero_shot

The trainings are those of `offline_safe_rl` with the same settings, and are not done twice.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sim.experiments.job import Job
from sim.experiments.offline_safe_rl import OfflineSafeRl, require_limit


@dataclass
class ZeroShot(OfflineSafeRl):
    """Tests every trained policy under several thresholds; a row of the table each."""

    methods: tuple[str, ...] = ("qpt", "cdt")

    thresholds: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """As multiples of the threshold of training."""

    validation: int = 0
    out: Path = Path("results/offline_zero_shot.csv")

    def _jobs(self) -> list[Job]:
        for factor in self.thresholds:
            require_limit("thresholds", factor)
        return [dataclasses.replace(job, tested_cost=factor * job.target_cost)
                for job in super()._jobs() for factor in self.thresholds]
