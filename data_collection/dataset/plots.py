"""Pictures of a dataset: what it rewards and costs, where the tool went, how it acted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_collection.dataset.summary import OUTCOMES, Row

KINDS = {"random": "#8a8a8a", "unsafe": "#e0a106", "safe": "#2f6db5"}
"""Colours of FOSP's Figure 10: grey random, yellow unsafe, blue safe data."""
OUTCOME_COLOURS = dict(zip(OUTCOMES, ("#1a7f5a", "#4a6fa5", "#e08a1e", "#c2402c"), strict=True))
AXES = ("x", "y", "z", "rotation x", "rotation y", "rotation z")
BINS = 40


def behaviour(row: Row) -> str:
    """One of `KINDS`: what kind of policy an episode is from, by its recorded name, else by whether it cost."""
    name = str(row.episode.metadata.get("behavior", ""))
    if "random" in name:
        return "random"
    if name.startswith(("unsafe", "contact")):
        return "unsafe"
    return "safe" if name.startswith("safe") or row.cost == 0 else "unsafe"


def reward_cost(rows: Sequence[Row]) -> Figure:
    """Return and cost of each episode, coloured by outcome; episodes that coincide are one larger dot."""
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for outcome, colour in OUTCOME_COLOURS.items():
        chosen = [row for row in rows if row.outcome == outcome]
        _dots(axis, chosen, colour, f"{outcome.replace('_', ' ')} ({len(chosen)})")
    axis.set(xlabel="return (sum of rewards)", ylabel="cost (sum over the episode)", title=f"{len(rows)} episodes")
    return figure


def distribution(rows: Sequence[Row]) -> Figure:
    """FOSP's Figure 10: return against cost of every trajectory, one panel a task, coloured by behaviour."""
    tasks = sorted({row.text("task") for row in rows})
    columns = min(3, len(tasks))
    figure, axes = plt.subplots(-(-len(tasks) // columns), columns, squeeze=False, layout="constrained",
                                figsize=(3.6 * columns + 1, 3.4 * -(-len(tasks) // columns)))
    for axis in axes.flat[len(tasks):]:
        axis.axis("off")
    for axis, task in zip(axes.flat, tasks, strict=False):
        for kind, colour in KINDS.items():
            chosen = [row for row in rows if row.text("task") == task and behaviour(row) == kind]
            if chosen:
                _dots(axis, chosen, colour, f"{kind} ({len(chosen)})")
        axis.set(title=task, xlabel="reward return", ylabel="cost return")
    return figure


def workspace(rows: Sequence[Row]) -> Figure:
    """Where the tool was, from above and from the side, and where it cost. Empty without poses."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    with_pose = [row for row in rows if "pose" in row.episode.observations]
    if not with_pose:
        for axis in axes:
            axis.text(0.5, 0.5, "no poses in this dataset", ha="center", transform=axis.transAxes)
        return figure
    points = np.concatenate([row.episode.observations["pose"][:, :3] for row in with_pose])
    costly = np.concatenate([row.episode.observations["pose"][1:, :3][row.episode.cost > 0] for row in with_pose])
    limits = next((row.episode.metadata["limits"] for row in with_pose
                   if "workspace_low" in (row.episode.metadata.get("limits") or {})), None)
    for axis, (across, up), title in zip(axes, ((1, 0), (1, 2)), ("from above", "from the front"), strict=True):
        _, _, _, heat = axis.hist2d(points[:, across], points[:, up], bins=BINS, cmap="Blues", cmin=1)
        axis.plot(costly[:, across], costly[:, up], ".", ms=2, color="#c2402c", alpha=0.5, label="cost")
        if limits:
            low, high = limits["workspace_low"], limits["workspace_high"]
            axis.add_patch(plt.Rectangle((low[across], low[up]), high[across] - low[across], high[up] - low[up],
                                         fill=False, ec="0.4", ls="--", label="workspace"))
        axis.set(title=f"tool, {title}", xlabel="y [m]", ylabel=f"{'xyz'[up]} [m]")
        axis.margins(0.05)
        axis.invert_xaxis()
        figure.colorbar(heat, ax=axis, label="observations")
        axis.legend(fontsize=8, loc="upper right")
    return figure


def actions(rows: Sequence[Row]) -> Figure:
    """Histograms of the executed action, one panel a dimension, with a person's actions apart."""
    size = rows[0].episode.executed_action.shape[1]
    episodes = [row.episode for row in rows if row.episode.executed_action.shape[1] == size]
    values = np.concatenate([episode.executed_action for episode in episodes])
    taken = np.concatenate([episode.intervention for episode in episodes])
    columns = min(3, size)
    figure, axes = plt.subplots(-(-size // columns), columns, squeeze=False, sharey=True, layout="constrained",
                                figsize=(3.2 * columns, 2.4 * -(-size // columns)))
    for axis in axes.flat[size:]:
        axis.axis("off")
    low, high = min(-1.0, float(values.min())), max(1.0, float(values.max()))
    for index, axis in zip(range(size), axes.flat, strict=False):
        axis.hist([values[~taken, index], values[taken, index]], bins=BINS, range=(low, high), stacked=True,
                  color=["#4a6fa5", "#e0a106"], label=["policy", "person"])
        axis.set_title(AXES[index] if size == len(AXES) else f"action {index}", fontsize=9)
        axis.set_yscale("log")
    if taken.any():
        axes[0, 0].legend(fontsize=8)
    figure.supxlabel("executed action [its unit]", fontsize=9)
    figure.supylabel("steps", fontsize=9)
    return figure


PLOTS = {"reward_cost": reward_cost, "distribution": distribution, "workspace": workspace, "actions": actions}


def write_plots(rows: Sequence[Row], out: Path) -> list[Path]:
    """Every plot as a PNG in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for name, draw in PLOTS.items():
        figure = draw(rows)
        files.append(out / f"{name}.png")
        figure.savefig(files[-1], dpi=130)
        plt.close(figure)
    return files


def _dots(axis: Axes, rows: Sequence[Row], colour: str, label: str) -> None:
    counts = Counter((round(row.reward, 4), round(row.cost, 4)) for row in rows)
    points = np.array(list(counts), float).reshape(-1, 2)
    axis.scatter(points[:, 0], points[:, 1], s=14 * np.sqrt(list(counts.values())), c=colour, alpha=0.6, lw=0,
                 label=label)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8)
