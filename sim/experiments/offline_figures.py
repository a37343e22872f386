"""QPT's Figures 1 and 2 as pictures, from the rows of `offline_ablations` and `offline_zero_shot`.

    make experiments EXP=offline_figures
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from safe_policy_core.errors import ConfigurationError
from sim.experiments.rows import Row, read_rows

Lines = dict[str, dict[float, list[Row]]]
"""Name in the legend -> place on the x axis -> rows of all seeds."""
WEIGHTS = {"reward": "η₁ (reward)", "safety": "η₂ (cost)"}


@dataclass
class OfflineFigures:
    """Draws both pictures from rows that are there; trains nothing."""

    zero_shot: Path = Path("results/offline_zero_shot.csv")
    ablations: Path = Path("results/offline_ablations.csv")
    out: Path = Path("results/pictures")
    """Folder of offline_zero_shot.png and offline_weights.png."""

    def run(self) -> dict[str, Any]:
        """Returns the pictures' paths. Raises `ConfigurationError` where there are no rows."""
        self.out.mkdir(parents=True, exist_ok=True)
        return {"pictures": [
            str(_draw(self.out / "offline_zero_shot.png", self.zero_shot, thresholds_of, "cost threshold", True)),
            str(_draw(self.out / "offline_weights.png", self.ablations, weights_of, "weight", False))]}


def thresholds_of(rows: Sequence[Row]) -> Lines:
    """Figure 2: every method by the threshold that it was told."""
    lines: Lines = {}
    for row in rows:
        lines.setdefault(row.method, {}).setdefault(row.target_cost, []).append(row)
    return lines


def weights_of(rows: Sequence[Row]) -> Lines:
    """Figure 1: QPT by either weight, the other being 1. Weight 0 is not among them: those rows lack candidates too."""
    lines: Lines = {}
    for row in rows:
        part, _, text = row.method.removeprefix("qpt:").rpartition("_")
        base = row.method == "qpt"
        weight = 1.0 if base else float(text) if part in WEIGHTS else None
        for name in WEIGHTS:
            if weight is not None and (base or name == part):
                lines.setdefault(WEIGHTS[name], {}).setdefault(weight, []).append(row)
    return lines


def episode_cost(row: Row) -> float:
    """The mean cost of an episode from the normalised one (`normalized_cost`)."""
    return row.normalized_cost * row.target_cost if row.target_cost else row.normalized_cost - 1


def _draw(path: Path, source: Path, lines_of: Callable[[Sequence[Row]], Lines], axis: str, limit_is_x: bool) -> Path:
    """One row of axes a dataset: reward and cost. limit_is_x: the limit is the x axis' value, else one for all."""
    rows = read_rows(source)
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if not datasets:
        raise ConfigurationError(f"{source}: no rows to draw")
    figure = Figure(figsize=(8, 2.7 * len(datasets)), layout="constrained")
    for (reward, cost), dataset in zip(figure.subplots(len(datasets), 2, squeeze=False), datasets, strict=True):
        own = [row for row in rows if row.dataset == dataset]
        for name, places in lines_of(own).items():
            places = dict(sorted(places.items()))
            reward.plot(list(places), [np.mean([row.normalized_reward for row in found]) for found in places.values()],
                        marker="o", ms=3, label=name)
            cost.plot(list(places), [np.mean([episode_cost(row) for row in found]) for found in places.values()],
                      marker="o", ms=3)
        limits = sorted({row.target_cost for row in own})
        if limit_is_x:
            cost.plot(limits, limits, color="0.4", ls=":", label="limit")
        else:
            cost.axhline(limits[0], color="0.4", ls=":", label="limit")
        reward.set(title=f"{dataset}: normalised reward", xlabel=axis)
        cost.set(title=f"{dataset}: cost of an episode", xlabel=axis, ylim=(0, None))
        for each in (reward, cost):
            each.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=80)
    return path
