"""Mixing ratios: how many episodes of each outcome there are, and how many there should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from data_collection.dataset.summary import OUTCOMES, Row, outcome_counts
from safe_policy_core.errors import DatasetError

PAPER_TARGET = (120, 30, 40, 10)
"""FOSP, appendix D.1, in the order of `OUTCOMES`."""
_BAR = 24


def progress(rows: Sequence[Row], target: Sequence[int]) -> str:
    """A bar for each outcome: how many there are of how many there should be."""
    counts = outcome_counts(rows)
    width = max(map(len, OUTCOMES))
    lines = []
    for outcome, wanted in zip(OUTCOMES, target, strict=True):
        have = counts[outcome]
        filled = _BAR if have >= wanted else int(_BAR * have / wanted)
        left = f"{wanted - have} to go" if have < wanted else f"{have - wanted} too many" if have > wanted else "done"
        lines.append(f"{outcome:<{width}}  {'█' * filled}{'·' * (_BAR - filled)}  {have:>4} of {wanted:<4} {left}")
    have, wanted = sum(min(counts[name], n) for name, n in zip(OUTCOMES, target, strict=True)), sum(target)
    return "\n".join([*lines, f"{'together':<{width}}  {' ' * _BAR}  {have:>4} of {wanted}"])


def choose(rows: Sequence[Row], target: Sequence[int], seed: int) -> list[Row]:
    """A drawn subset with exactly `target` episodes of each outcome. Raises `DatasetError` naming what is missing."""
    by_outcome = defaultdict(list)
    for row in rows:
        by_outcome[row.outcome].append(row)
    missing = [f"{wanted - len(by_outcome[name])} more {name}" for name, wanted in zip(OUTCOMES, target, strict=True)
               if len(by_outcome[name]) < wanted]
    if missing:
        raise DatasetError(f"mix: {', '.join(missing)} needed; collect them, or lower the target")
    rng = np.random.default_rng(seed)
    chosen = [by_outcome[name][index] for name, wanted in zip(OUTCOMES, target, strict=True)
              for index in rng.permutation(len(by_outcome[name]))[:wanted]]
    return sorted(chosen, key=lambda row: row.path)


def parts(rows: Sequence[Row], shares: dict[str, float], seed: int) -> dict[str, list[Row]]:
    """`rows` divided by `shares` (which add up to 1), each outcome by itself, so that the parts look alike.

    Raises `DatasetError` for shares that do not fit.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise DatasetError(f"parts: expected positive shares that add up to 1, got {shares}")
    rng = np.random.default_rng(seed)
    divided: dict[str, list[Row]] = {name: [] for name in shares}
    borders = np.cumsum([0.0, *shares.values()])
    for outcome in OUTCOMES:
        group = [row for row in rows if row.outcome == outcome]
        # A random offset gives the odd ones of small groups to each part in turn, not always to the last.
        cuts = np.floor(borders * len(group) + rng.random()).astype(int)
        cuts[0], cuts[-1] = 0, len(group)
        order = rng.permutation(len(group))
        for name, begin, end in zip(shares, cuts[:-1], cuts[1:], strict=True):
            divided[name] += [group[index] for index in order[begin:end]]
    return {name: sorted(chosen, key=lambda row: row.path) for name, chosen in divided.items()}
