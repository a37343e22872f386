"""What `safe-policy dataset info|validate|plot` tell of a DSRL file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from data_collection.dataset.plots import BINS
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.dsrl_tasks import DsrlTask, load_tasks

BOUND_TOLERANCE = 1e-4
"""By how much an action may exceed its bounds, and a return those of DSRL's table; float32."""


def task_of(path: Path, dataset: DsrlDataset) -> tuple[DsrlTask | None, bool]:
    """(the task a file is of, whether it is DSRL's own file): by its name, else by what its metadata say."""
    tasks = load_tasks()
    for task in tasks.values():
        if path.name == task.file:
            return task, True
    return tasks.get(str(dataset.metadata.get("task", ""))), False


def summary(path: Path, dataset: DsrlDataset) -> dict[str, Any]:
    """Totals, JSON-ready. Returns and costs are undiscounted sums; `within` tells, for each of the task's usual cost
    limits, how many episodes keep it and the best return among them."""
    task, official = task_of(path, dataset)
    limits = task.thresholds if task else ()
    within = {f"{limit:g}": _within(dataset, limit) for limit in limits}
    result: dict[str, Any] = {
        "file": str(path), "task": task.name if task else str(dataset.metadata.get("task", "unknown")),
        "made_by_dsrl": official, "episodes": len(dataset), "steps": dataset.rows, "bytes": path.stat().st_size,
        "observation": dataset.observations.shape[1], "action": dataset.actions.shape[1],
        "steps_per_episode": _spread(dataset.lengths), "return": _spread(dataset.returns),
        "cost": _spread(dataset.cost_returns), "episodes_without_cost": int((dataset.cost_returns == 0).sum()),
        "within": within,
        "ends": {"terminated": int(dataset.terminals.sum()), "timed_out": int(dataset.timeouts.sum())},
        "rows_after_the_last_episode": dataset.dropped, "every_step_kept": dataset.every_next_observation is None}
    if official and task:
        result["normalization"] = {"min_return": task.min_return, "max_return": task.max_return}
    return result


def doubts(path: Path, dataset: DsrlDataset) -> Iterator[str]:
    """One line for each thing that a person should look at before training on the file."""
    task, official = task_of(path, dataset)
    for bound, side in ((dataset.specs.action.low, -1), (dataset.specs.action.high, 1)):
        if bound is not None:
            excess = side * (dataset.actions - np.asarray(bound, np.float32))
            if excess.max() > BOUND_TOLERANCE:
                row = _first(excess > BOUND_TOLERANCE)
                yield f"actions: {excess.max():.3g} outside their bound {bound}, first in row {row}"
    if (dataset.costs < 0).any():
        yield f"costs: expected at least 0, got {dataset.costs.min():g} in row {_first(dataset.costs < 0)}"
    if not dataset.costs.any():
        yield "costs: all zero; nothing here tells what is unsafe"
    if dataset.dropped:
        yield f"terminals, timeouts: {dataset.dropped} rows after the last end of an episode; they are not trained on"
    if dataset.every_next_observation is not None:
        yield "next_observations: not the following rows (a thinned file); sequence models would see gaps as steps"
    if task and dataset.lengths.max() > task.horizon:
        yield f"timeouts: an episode of {dataset.lengths.max()} steps, {task.name} has at most {task.horizon}"
    if copies := _copies(dataset):
        yield f"{copies} of {len(dataset)} episodes are copies of others"
    if task and official:
        yield from _unlike_the_table(dataset, task)


def _unlike_the_table(dataset: DsrlDataset, task: DsrlTask) -> Iterator[str]:
    low, high, tolerance = task.min_return, task.max_return, BOUND_TOLERANCE * (task.max_return - task.min_return)
    outside = (dataset.returns < low - tolerance) | (dataset.returns > high + tolerance)
    if outside.any():
        first = _first(outside)
        yield (f"rewards: {int(outside.sum())} returns outside DSRL's {low:g} to {high:g}, first episode {first} with "
               f"{dataset.returns[first]:g}")
    if len(dataset) != task.episodes:
        yield f"{len(dataset)} episodes, DSRL's file has {task.episodes}"


def draw_plane(axis: Axes, dataset: DsrlDataset, limits: Sequence[float] = ()) -> None:
    """The reward-cost plane as users of DSRL know it: one dot an episode, and a line for each cost limit."""
    axis.scatter(dataset.cost_returns, dataset.returns, s=6, alpha=0.6, linewidths=0, color="#2f6db5")
    for limit in limits:
        axis.axvline(limit, color="#c2402c", linewidth=0.8)
    axis.set(xlabel="cost return", ylabel="reward return")


def write_plots(path: Path, dataset: DsrlDataset, out: Path) -> list[Path]:
    """The reward-cost plane between the histograms of both, and histograms of the actions, as PNGs in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    task, _ = task_of(path, dataset)
    limits = task.thresholds if task else ()
    figure, axes = plt.subplots(2, 2, figsize=(6, 5), layout="constrained", sharex="col", sharey="row",
                                width_ratios=(4, 1), height_ratios=(1, 4))
    draw_plane(axes[1, 0], dataset, limits)
    axes[0, 0].hist(dataset.cost_returns, bins=BINS, color="#c2402c")
    axes[1, 1].hist(dataset.returns, bins=BINS, orientation="horizontal", color="#2f6db5")
    axes[0, 1].axis("off")
    axes[0, 0].set(ylabel="episodes")
    axes[1, 1].set(xlabel="episodes")
    named = "limits " + ", ".join(f"{limit:g}" for limit in limits) if limits else "no usual limits"
    figure.suptitle(f"{path.stem}: {len(dataset)} episodes, {named}", fontsize=10)
    files = [out / f"{path.stem}_reward_cost.png", out / f"{path.stem}_actions.png"]
    figure.savefig(files[0], dpi=130)
    plt.close(figure)
    size = dataset.actions.shape[1]
    columns = min(4, size)
    figure, axes = plt.subplots(-(-size // columns), columns, squeeze=False, sharey=True, layout="constrained",
                                figsize=(2.8 * columns, 2.2 * -(-size // columns)))
    for index, axis in enumerate(axes.flat):
        if index >= size:
            axis.axis("off")
            continue
        axis.hist(dataset.actions[:, index], bins=BINS, color="#4a6fa5")
        axis.set_title(f"action {index}", fontsize=9)
        axis.set_yscale("log")
    figure.supylabel("steps", fontsize=9)
    figure.savefig(files[1], dpi=130)
    plt.close(figure)
    return files


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"least": round(float(values.min()), 4), "median": round(float(np.median(values)), 4),
            "most": round(float(values.max()), 4)}


def _within(dataset: DsrlDataset, limit: float) -> dict[str, Any]:
    safe = dataset.cost_returns <= limit
    best = round(float(dataset.returns[safe].max()), 4) if safe.any() else None
    return {"episodes": int(safe.sum()), "best_return": best}


def _first(found: np.ndarray) -> int:
    """Index of the first row in which anything is true."""
    return int(np.flatnonzero(found.reshape(len(found), -1).any(1))[0])


def _copies(dataset: DsrlDataset) -> int:
    seen = Counter(dataset.actions[begin:end].tobytes() + dataset.observations[begin].tobytes()
                   for begin, end in zip(dataset.starts[:-1], dataset.starts[1:], strict=True))
    return len(dataset) - len(seen)
