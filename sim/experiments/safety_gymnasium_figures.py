"""Figures of the Safety-Gymnasium experiment: data (Figure 10), learning curves (Figure 3), reconstructions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt

from safe_policy_core.data.episode_file import read_tracks
from safe_policy_core.data.episodes import EpisodeStore, episode_files
from safe_policy_core.methods.registry import load_learner
from sim.experiments.fosp_tables import TABLE_1

if TYPE_CHECKING:
    from sim.experiments.safety_gymnasium import Point

COLOURS = {"random": "#9aa0a6", "unsafe": "#e0a91e", "safe": "#2f6db5"}
"""Figure 10's: grey, yellow and blue."""
METHOD_COLOURS = {"fosp": "#c2402c", "safe_dreamer": "#2f6db5", "dreamer": "#7a7a7a", "recovery_rl": "#1a7f5a"}
CONTEXT, ROWS = 5, 20
"""Rows that the world model sees before it imagines, and rows shown."""
SMALLEST_RANGE = 0.2
"""A lidar's bin in which nothing ever is, is shown as such."""


def distribution(path: Path, folders: Mapping[str, Path]) -> Path:
    """Return and cost of every episode of each task's folder, coloured by its behaviour."""
    figure, axes = plt.subplots(1, len(folders), figsize=(3.2 * len(folders), 2.8), squeeze=False, layout="constrained")
    for axis, (task, folder) in zip(axes[0], folders.items(), strict=True):
        for behaviour, (returns, costs) in returns_and_costs(folder).items():
            axis.scatter(returns, costs, s=9, alpha=0.7, linewidths=0, color=COLOURS[behaviour], label=behaviour)
        axis.set(title=task, xlabel="reward return", ylabel="cost return")
        axis.legend(frameon=False, fontsize=8)
    return _saved(path, figure)


def returns_and_costs(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Behaviour -> undiscounted returns and costs of its episodes."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for file in episode_files(folder):
        episode = read_tracks(file)
        returns, costs = found.setdefault(episode.metadata["behavior"], ([], []))
        returns.append(float(episode.reward.sum()))
        costs.append(float(episode.cost.sum()))
    return found


def curves(path: Path, points: Sequence[Point]) -> Path:
    """Reward, cost and cost regret over offline gradient steps and, behind the line, online environment steps.

    One row for each pair of tasks; bands span the seeds. Dotted: where the paper's FOSP ended offline and online.
    """
    pairs = list(dict.fromkeys((point.offline_task, point.task) for point in points))
    figure, axes = plt.subplots(len(pairs), 3, figsize=(10.5, 2.6 * len(pairs)), squeeze=False, layout="constrained")
    for row, (source, task) in zip(axes, pairs, strict=True):
        own = [point for point in points if (point.offline_task, point.task) == (source, task)]
        offline = max(point.gradient_steps for point in own if point.environment_steps == 0)
        longest = max(point.environment_steps for point in own)
        for axis, name in zip(row, ("reward", "cost", "cost_regret"), strict=True):
            for method in dict.fromkeys(point.method for point in own):
                _curve(axis, [point for point in own if point.method == method], name, offline, longest)
            axis.axvline(0, color="0.4", lw=0.8)
            axis.set(title=f"{source} → {task}: {name.replace('_', ' ')}", xlim=(-1.05, 1.05))
            axis.set_xticks([-1, 0, 1], ["0", f"{offline} | 0", str(longest)])
            axis.set_xlabel("gradient steps | environment steps", fontsize=8)
            if source == task in TABLE_1 and name != "cost_regret":
                paper = TABLE_1[task]["fosp"][:2] if name == "reward" else TABLE_1[task]["fosp"][2:]
                for place, level in zip(((0.0, 0.5), (0.5, 1.0)), paper, strict=True):
                    axis.axhline(level, *place, color=METHOD_COLOURS["fosp"], lw=0.8, ls=":")
        row[0].legend(frameon=False, fontsize=8)
    return _saved(path, figure)


def _curve(axis: Any, points: Sequence[Point], name: str, offline: int, longest: int) -> None:
    """One method's: x is the share of offline training done, less 1, and then that of fine-tuning."""
    colour = METHOD_COLOURS[points[0].method]
    label: str | None = points[0].method
    for phase in ("offline", "online"):
        places: dict[float, list[float]] = {}
        for point in points:
            value = getattr(point, name)
            if point.phase != phase or value is None:
                continue
            place = point.gradient_steps / offline - 1 if phase == "offline" else \
                point.environment_steps / max(longest, 1)
            places.setdefault(place, []).append(value)
        if not places:
            continue
        x, values = zip(*sorted(places.items()), strict=True)
        axis.plot(x, [np.mean(value) for value in values], color=colour, lw=1.4, marker="o", ms=3, label=label)
        label = None  # once in the legend
        axis.fill_between(x, [min(value) for value in values], [max(value) for value in values], color=colour,
                          alpha=0.15, linewidth=0)


def reconstructions(path: Path, checkpoint: Path, folder: Path) -> Path:
    """What was seen, what the world model makes of it, and what it expects without seeing after `CONTEXT` rows.

    An episode of the unsafe behaviour from the training data. Pictures as films; sensors as a row of shades each.
    """
    learner = load_learner(checkpoint)
    store = EpisodeStore([next(file for file in episode_files(folder) if "unsafe" in file.name)])
    batch = {name: rows[None, :ROWS] for name, rows in store.rows_of(0).items()}
    shown = [batch, learner.reconstruct(batch), learner.imagine_video(batch, CONTEXT)]
    names = list(learner.specs.observation)
    figure, axes = plt.subplots(3, len(names), figsize=(10.5, 3.3), squeeze=False, layout="constrained")
    for row, source, title in zip(axes, shown, ("seen", "reconstructed", f"imagined after {CONTEXT}"), strict=True):
        for axis, name in zip(row, names, strict=True):
            frames = np.asarray(source[name][0])
            if frames.ndim == 4:
                axis.imshow(np.concatenate(frames[::2], 1))
            else:
                # Each sensor in its own range: an accelerometer's would leave nothing of a lidar's.
                low, high = batch[name][0].min(0), batch[name][0].max(0)
                axis.imshow(((frames - low) / np.maximum(high - low, SMALLEST_RANGE)).T, aspect="auto", vmin=0, vmax=1,
                            cmap="viridis")
            axis.set(title=f"{name}, {title}", xticks=[], yticks=[])
    return _saved(path, figure)


def _saved(path: Path, figure: Any) -> Path:
    figure.savefig(path, dpi=90)
    plt.close(figure)
    return path
