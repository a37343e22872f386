"""Pictures for the report, as data that an HTML page can hold."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

GOOD, BAD, NEUTRAL = "#1a7f5a", "#c2402c", "#4a6fa5"
plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"})


def svg(figure: Figure) -> str:
    """The figure as inline SVG; closes it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg"):]


def data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def png(image: np.ndarray, scale: int = 1) -> str:
    """(H, W, 3) uint8 as a data URI, enlarged by whole pixels so that small images stay sharp."""
    import imageio.v3 as iio

    enlarged = np.repeat(np.repeat(image, scale, 0), scale, 1)
    return data_uri(iio.imwrite("<bytes>", enlarged, extension=".png"), "image/png")


def video(path: Path) -> str:
    return data_uri(path.read_bytes(), "video/mp4")


def strip(frames: np.ndarray, count: int = 8) -> np.ndarray:
    """`count` frames evenly from first to last, side by side. frames (T, H, W, 3) uint8."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)]
    gap = np.full((chosen.shape[1], 2, 3), 255, np.uint8)
    return np.concatenate([part for frame in chosen for part in (frame, gap)][:-1], axis=1)


def rates(rows: Sequence[tuple[str, dict[str, float], dict[str, float]]]) -> str:
    """Success and violation rates with 95% intervals.

    rows: (label, success, violation), each rate a mapping with `rate`, `low` and `high` in [0, 1].
    """
    figure, axes = plt.subplots(1, 2, figsize=(8, 0.7 + 0.45 * len(rows)), sharey=True)
    for axis, title, index, colour in ((axes[0], "success", 1, GOOD), (axes[1], "violation", 2, BAD)):
        for y, row in enumerate(rows):
            rate = row[index]
            axis.plot([100 * rate["low"], 100 * rate["high"]], [y, y], color=colour, lw=6, alpha=0.3,
                      solid_capstyle="round")
            axis.plot(100 * rate["rate"], y, "o", color=colour)
        axis.set(title=f"episodes with {title} [%]", xlim=(-3, 103), ylim=(len(rows) - 0.5, -0.5))
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(rows)), [row[0] for row in rows])
    figure.tight_layout()
    return svg(figure)


def reliability(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Predicted violation probabilities against what came true; the area of a dot is its share of the steps.

    rows: (label, calibration), as `safe_policy_core.statistics.Calibration` in JSON.
    """
    figure, axis = plt.subplots(figsize=(3.6, 3.6))
    axis.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    for (label, curve), colour in zip(rows, (NEUTRAL, GOOD), strict=False):
        predicted, observed, count = (np.array([entry[name] for entry in curve["bins"]])
                                      for name in ("predicted", "observed", "count"))
        axis.plot(predicted, observed, color=colour, lw=1.2, label=label)
        axis.scatter(predicted, observed, s=8 + 120 * count / count.sum(), color=colour)
    axis.set(xlabel="predicted", ylabel="seen", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal",
             title="violation probability")
    axis.legend(frameon=False, fontsize=8)
    return svg(figure)


def curves(series: dict[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, columns: int = 4) -> str:
    """Small multiples: one panel a series, name -> (x, y)."""
    rows = -(-len(series) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 1.9 * rows), squeeze=False)
    for axis in axes.flat[len(series):]:
        axis.axis("off")
    for axis, (name, (x, y)) in zip(axes.flat, series.items(), strict=False):
        axis.plot(x, y, color=NEUTRAL, lw=1.2)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(xlabel, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    figure.tight_layout()
    return svg(figure)


def paths(episodes: Sequence[tuple[np.ndarray, bool, bool]], low: Sequence[float], high: Sequence[float]) -> str:
    """The tool's paths from above. episodes: (positions (T, >=2) [m], success, violation)."""
    figure, axis = plt.subplots(figsize=(3.6, 3.6))
    axis.add_patch(plt.Rectangle((low[1], low[0]), high[1] - low[1], high[0] - low[0], fill=False, ec="0.6", ls="--"))
    for positions, success, violation in episodes:
        colour = BAD if violation else GOOD if success else "0.5"
        axis.plot(positions[:, 1], positions[:, 0], color=colour, lw=1, alpha=0.8)
        axis.plot(positions[-1, 1], positions[-1, 0], "o", color=colour, ms=3)
    axis.set(xlabel="y [m]", ylabel="x [m]", aspect="equal", title="tool, from above")
    axis.invert_xaxis()
    return svg(figure)
