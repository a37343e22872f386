"""Figures of the SafeReach experiment: rates, episodes frame by frame (FOSP's Figure 12), and reliability curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt

from safe_policy_core.environments import make_env
from safe_policy_core.evaluation import rollout
from safe_policy_core.methods.registry import load_policy
from sim.experiments.contestants import CONTESTANTS

if TYPE_CHECKING:
    from sim.experiments.safe_reach import SafeReachExperiment

SUCCESS, VIOLATION, FAILURE = "#1a7f5a", "#c2402c", "#e08a1e"
"""Figure 12's colours: green frames, red and orange."""
FRAMES = 6
SHOWN = ("fosp", "safe_dreamer")
"""Whose episodes are shown, as in the paper."""


@dataclass(frozen=True)
class Strip:
    """One test episode. frames: (T, H, W, 3) uint8."""

    task: str
    method: str
    frames: np.ndarray
    success: bool
    violation: bool

    @property
    def colour(self) -> str:
        """Of the frame: a violation counts more than that the target was reached."""
        return VIOLATION if self.violation else SUCCESS if self.success else FAILURE


def episode_strips(experiment: SafeReachExperiment) -> list[Strip]:
    """The first test episode after fine-tuning, of the first seed, for each method of `SHOWN` that took part."""
    strips, seed = [], experiment.seeds[0]
    for task in experiment.tasks:
        for method in SHOWN:
            folder = experiment.folder(CONTESTANTS[method], seed)
            tested = folder / f"{task}_after.json"
            if method not in experiment.methods or not tested.exists():
                continue
            env = make_env(task)
            try:
                scene = int(json.loads(tested.read_text())["result"]["first_seed"])
                result = rollout(env, load_policy(folder / task), scene, record=True)
            finally:
                env.close()
            assert result.episode is not None  # asked for by record=True
            strips.append(Strip(task, method, result.episode.observations["image"], result.success, result.violation))
    return strips


def film(path: Path, strips: Sequence[Strip]) -> Path:
    """One row of frames for each episode, in its outcome's colour."""
    figure, axes = plt.subplots(len(strips), FRAMES, figsize=(1.3 * FRAMES, 1.4 * len(strips)), squeeze=False)
    for row, strip in zip(axes, strips, strict=True):
        chosen = np.linspace(0, len(strip.frames) - 1, FRAMES).round().astype(int)
        for axis, index in zip(row, chosen, strict=True):
            axis.imshow(strip.frames[index])
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color=strip.colour, linewidth=3)
        row[0].set_ylabel(f"{strip.task}\n{strip.method}", fontsize=8)
    return _saved(path, figure)


def calibrations(experiment: SafeReachExperiment) -> dict[str, list[dict[str, Any]]]:
    """Method -> calibrations of its tests, of all tasks and seeds, where it says how likely a violation is."""
    found: dict[str, list[dict[str, Any]]] = {}
    for method in experiment.methods:
        for path in sorted((experiment.out / method).glob("seed_*/*.json")):
            curve = json.loads(path.read_text())["result"].get("calibration")
            if curve:
                found.setdefault(method, []).append(curve)
    return found


def pool(curves: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[float, float, int]], float]:
    """(predicted, observed, steps) of each bin over all curves, and the Brier score of all their steps."""
    bins: dict[float, list[float]] = {}
    steps, squares = 0, 0.0
    for curve in curves:
        count = sum(entry["count"] for entry in curve["bins"])
        steps, squares = steps + count, squares + count * curve["brier"]
        for entry in curve["bins"]:
            sums = bins.setdefault(entry["low"], [0.0, 0.0, 0.0])
            for index, value in enumerate((entry["predicted"], entry["observed"], 1.0)):
                sums[index] += entry["count"] * value
    return [(predicted / number, observed / number, int(number))
            for _, (predicted, observed, number) in sorted(bins.items())], squares / steps


def reliability(path: Path, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Predicted against discounted future violations (eq. 30); the area of a dot is its share of the steps."""
    figure, axis = plt.subplots(figsize=(4.2, 4))
    axis.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    for method, found in curves.items():
        points, brier = pool(found)
        predicted, observed, steps = map(np.array, zip(*points, strict=True))
        line, = axis.plot(predicted, observed, lw=1.2, label=f"{method}, Brier {brier:.3f}")
        axis.scatter(predicted, observed, s=10 + 150 * steps / steps.sum(), color=line.get_color())
    axis.set(xlabel="predicted violation probability", ylabel="observed", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.legend(frameon=False, fontsize=8)
    return _saved(path, figure)


def rates(path: Path, sums: Mapping[tuple[str, str, str], tuple[int, int, int]]) -> Path:
    """A panel for each task: success and violations by method, tested last (after, before or offline)."""
    latest: dict[str, dict[str, tuple[int, int, int]]] = {}
    for (task, method, phase), numbers in sums.items():
        if phase != "during":
            latest.setdefault(task, {})[method] = numbers
    methods = list(dict.fromkeys(method for numbers in latest.values() for method in numbers))
    # One list of names for all panels, else they take more room than the bars.
    figure, axes = plt.subplots(1, len(latest), figsize=(2 + 1.7 * len(latest), 1.1 + 0.3 * len(methods)),
                                squeeze=False, sharey=True, layout="constrained")
    for axis, (task, found) in zip(axes[0], latest.items(), strict=True):
        rows = np.array([methods.index(method) for method in found])
        for index, (column, colour, label) in enumerate(((1, SUCCESS, "success"), (2, VIOLATION, "violation"))):
            values = [100 * numbers[column] / numbers[0] for numbers in found.values()]
            axis.barh(rows + 0.36 * index, values, 0.34, color=colour, label=label)
        axis.set_title(task, fontsize=10)
        axis.set(xlim=(0, 100), xlabel="episodes [%]")
    axes[0][0].set_yticks(np.arange(len(methods)) + 0.18, methods, fontsize=8)
    axes[0][0].invert_yaxis()
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize=8)
    return _saved(path, figure)


def _saved(path: Path, figure: Any) -> Path:
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
