"""The reward-cost plane of datasets, as users of DSRL know it: one dot a trajectory.

    python -m sim.collectors.picture runs/benchmark/*.hdf5 --out results/pictures/benchmark.png
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import tyro

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt

from safe_policy_core.data.dsrl import read_dsrl
from sim.collectors.tasks import TASKS

COLUMNS, PANEL, RESOLUTION = 3, (3.2, 2.6), 80
"""Panels in a row, their size [inches], and dots per inch: a small file."""


@dataclass
class Picture:
    """Draws undiscounted cost and reward of every trajectory, one panel a dataset, with the cost limit as a line."""

    datasets: tyro.conf.Positional[tuple[Path, ...]]
    """DSRL files."""

    out: Path
    """Picture (.png)."""

    def run(self) -> None:
        """Writes the picture. Raises `DatasetError` for a file that cannot be read."""
        rows = -(-len(self.datasets) // COLUMNS)
        figure, axes = plt.subplots(rows, COLUMNS, squeeze=False, layout="constrained",
                                    figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows))
        for axis in axes.flat[len(self.datasets):]:
            axis.axis("off")
        for axis, path in zip(axes.flat, self.datasets, strict=False):
            dataset = read_dsrl(path)
            axis.scatter(dataset.cost_returns, dataset.returns, s=6, alpha=0.6, linewidths=0, color="#2f6db5")
            task = TASKS.get(dataset.metadata.get("task", ""))
            if task is not None:
                axis.axvline(task.target_cost, color="#c2402c", linewidth=0.8)
            axis.set(title=f"{path.stem} ({len(dataset)})", xlabel="cost return", ylabel="reward return")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out, dpi=RESOLUTION)
        plt.close(figure)


if __name__ == "__main__":
    tyro.cli(Picture).run()
