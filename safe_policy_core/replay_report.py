"""The simulation replay that a checkpoint needs before it may move a real arm: kept beside its weights.

The report names the weights by their SHA-256, so that it holds for exactly these.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_policy_core import __version__
from safe_policy_core.checkpoint import find_checkpoint, read_manifest
from safe_policy_core.errors import CheckpointError, ConfigurationError
from safe_policy_core.statistics import clopper_pearson

REPORT = "replay.json"
_NUMBERS = ("episodes", "success_rate", "violation_rate")


@dataclass(frozen=True)
class ReplayGate:
    """What weights must have shown in simulation. The one place for its defaults.

    max_violation_rate: the upper end of the violation rate's exact 95% interval (Clopper and Pearson) must lie under
    it. A policy that was seen in few episodes does not pass, however well it did. min_success_rate: of the episodes.
    """

    max_violation_rate: float = 0.05
    min_success_rate: float = 0.8

    def __post_init__(self) -> None:
        for name, low in (("max_violation_rate", 0.001), ("min_success_rate", 0.0)):
            if not low <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name}: expected a rate from {low:g} to 1, got {getattr(self, name)}")

    def episodes_needed(self, violations: int = 0) -> int:
        """The fewest episodes with so many violations that pass."""
        # Without a violation the upper end is 1 - 0.025^(1/n); each violation asks for more.
        found = math.ceil(math.log(0.025) / math.log1p(-min(self.max_violation_rate, 0.999)))
        while found <= violations or clopper_pearson(violations, found)[1] >= self.max_violation_rate:
            found += 1
        return found

    def problem(self, task: str, row: dict[str, Any]) -> str:
        """Why a task's row does not pass, or ""."""
        if row["success_rate"] < self.min_success_rate:
            return (f"replay of {task}: success in {row['success_rate']:.0%}, expected at least "
                    f"{self.min_success_rate:.0%}")
        bound = upper_bound(row)
        if bound < self.max_violation_rate:
            return ""
        violations = _violations(row)
        seen = f"replay of {task}: {violations} violations in {row['episodes']} episodes: the rate may be {bound:.1%}"
        if row["episodes"] < self.episodes_needed(violations):
            return (f"{seen} (95% interval), expected under {self.max_violation_rate:.1%}, for which "
                    f"{self.episodes_needed(violations)} episodes are needed")
        return f"{seen} (95% interval), expected under {self.max_violation_rate:.1%}"


def upper_bound(row: dict[str, Any]) -> float:
    """Upper end of the exact 95% interval of a row's violation rate, from its counts."""
    return clopper_pearson(_violations(row), int(row["episodes"]))[1]


def _violations(row: dict[str, Any]) -> int:
    return round(row["violation_rate"] * row["episodes"])


MIN_EPISODES = ReplayGate().episodes_needed()
"""Fewer never pass with the default bound."""


def write(checkpoint: Path | str, task: str, seeds: range, summary: dict[str, Any]) -> Path:
    """Keeps the result of `seeds` in `task`; other tasks' results of the same weights stay.

    summary: `evaluation.Summary.to_json`. Raises `CheckpointError` when it cannot be written.
    """
    folder = find_checkpoint(checkpoint)
    sha256 = read_manifest(folder)["sha256"]
    try:
        tasks = read(folder)["tasks"]
    except CheckpointError:
        tasks = {}  # there was none, or it is another's
    row = {name: summary[name] for name in (*_NUMBERS, "success_interval", "violation_interval", "cost")}
    tasks[task] = row | {"first_seed": seeds.start, "software_version": __version__}
    partial = folder / f".{REPORT}.tmp"
    try:
        partial.write_text(json.dumps({"sha256": sha256, "tasks": tasks}, indent=1))
        os.replace(partial, folder / REPORT)
    except OSError as error:
        raise CheckpointError(f"{folder / REPORT}: cannot be written ({error.strerror})") from error
    return folder / REPORT


def read(checkpoint: Path | str) -> dict[str, Any]:
    """{"sha256", "tasks": {name: row}}. Raises `CheckpointError` when there is none for exactly these weights."""
    folder = find_checkpoint(checkpoint)
    sha256 = read_manifest(folder)["sha256"]
    try:
        content = json.loads((folder / REPORT).read_text())
        found, tasks = content["sha256"], content["tasks"]
        for row in tasks.values():
            episodes, success, violation = (float(row[name]) for name in _NUMBERS)
            if not (episodes >= 1 and episodes.is_integer() and 0 <= success <= 1 and 0 <= violation <= 1):
                raise ValueError(f"no counts or rates: {row}")
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no simulation replay of these weights ({sha256[:12]}); "
                              f"safe-policy replay --policy {folder} --task TASK makes one") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / REPORT}: damaged ({error!r})") from error
    if found != sha256:
        raise CheckpointError(f"{folder / REPORT}: of other weights: {str(found)[:12]} against {sha256[:12]}")
    return content


def problem(checkpoint: Path | str, task: str, sha256: str = "", gate: ReplayGate | None = None) -> str:
    """Why the weights may not move a real arm in `task`, or "". Raises `CheckpointError` for no checkpoint.

    sha256: of the weights in question, when they were loaded before and the folder may hold others by now.
    """
    find_checkpoint(checkpoint)
    try:
        content = read(checkpoint)
    except CheckpointError as error:
        return str(error)
    if sha256 and content["sha256"] != sha256:
        return f"{checkpoint}: holds other weights by now ({content['sha256'][:12]}, not {sha256[:12]})"
    row = content["tasks"].get(task)
    if row is None:
        return (f"{checkpoint}: no simulation replay in task {task}; "
                f"safe-policy replay --policy {checkpoint} --task {task} makes one")
    return (gate or ReplayGate()).problem(task, row)
