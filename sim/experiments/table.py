"""The Markdown table of an offline safe RL comparison, in the form of QPT's Table 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.experiments.rows import Row

SAFE = 1.0
"""Largest normalised cost of a safe agent."""


def table(rows: Sequence[Row]) -> str:
    """Methods in columns, datasets in rows; each cell has normalised reward and cost, means over the seeds.

    With several seeds their deviation too. **Bold**: safe, the mean normalised cost is at most 1. A star marks the
    highest reward among the safe ones of a dataset, which has a row for each limit. The last row is the mean over those
    that every method has.
    """
    cells: dict[tuple[tuple[str, float], str], list[Row]] = {}
    for row in rows:
        cells.setdefault(((row.dataset, row.target_cost), row.method), []).append(row)
    methods = list(dict.fromkeys(row.method for row in rows))
    datasets = list(dict.fromkeys(dataset for dataset, _ in cells))
    lines = [f"| dataset | {' | '.join(methods)} |", f"| --- |{' --- |' * len(methods)}"]
    for dataset in datasets:
        means = {method: _means(cells[dataset, method]) for method in methods if (dataset, method) in cells}
        best = _best(means)
        name, limit = dataset
        texts = [_cell(cells.get((dataset, method)), method == best) for method in methods]
        lines.append(f"| {name} (limit {limit:g}) | {' | '.join(texts)} |")
    whole = [dataset for dataset in datasets if all((dataset, method) in cells for method in methods)]
    if len(whole) > 1:
        averages = {method: np.mean([_means(cells[dataset, method]) for dataset in whole], 0) for method in methods}
        best = _best(averages)
        texts = [_text(*averages[method], method == best) for method in methods]
        lines.append(f"| mean of {len(whole)} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def _means(rows: Sequence[Row]) -> np.ndarray:
    """(2,) normalised reward and cost."""
    return np.array([[row.normalized_reward, row.normalized_cost] for row in rows]).mean(0)


def _best(means: dict[str, np.ndarray]) -> str | None:
    safe = {method: reward for method, (reward, cost) in means.items() if cost <= SAFE}
    return max(safe, key=lambda method: safe[method]) if safe else None


def _cell(rows: Sequence[Row] | None, best: bool) -> str:
    if not rows:
        return ""
    reward, cost = _means(rows)
    if len(rows) == 1:
        return _text(reward, cost, best)
    spread = np.std([[row.normalized_reward, row.normalized_cost] for row in rows], 0)
    return _text(reward, cost, best, f" ±{spread[0]:.2f}", f" ±{spread[1]:.2f}")


def _text(reward: float, cost: float, best: bool, reward_spread: str = "", cost_spread: str = "") -> str:
    text = f"{reward:.2f}{reward_spread} / {cost:.2f}{cost_spread}"
    return (f"**{text}**" if cost <= SAFE else text) + (" *" if best else "")
