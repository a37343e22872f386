"""The simulation replay that a checkpoint needs before it may move a real arm: kept beside its weights.

The report names the weights by their SHA-256, so that it holds for exactly these.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safe_policy_core import __version__
from safe_policy_core.checkpoint import find_checkpoint, read_manifest
from safe_policy_core.errors import CheckpointError

REPORT = "replay.json"
MIN_EPISODES = 20
MIN_SUCCESS_RATE = 0.8
MAX_VIOLATION_RATE = 0.05
_NUMBERS = ("episodes", "success_rate", "violation_rate")


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
            for name in _NUMBERS:
                float(row[name])
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: no simulation replay of these weights ({sha256[:12]})") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / REPORT}: damaged ({error!r})") from error
    if found != sha256:
        raise CheckpointError(f"{folder / REPORT}: of other weights: {str(found)[:12]} against {sha256[:12]}")
    return content


def problem(checkpoint: Path | str, task: str, sha256: str = "") -> str:
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
        return f"{checkpoint}: no simulation replay in task {task}"
    if row["episodes"] < MIN_EPISODES:
        return f"replay of {task}: {row['episodes']} episodes, expected at least {MIN_EPISODES}"
    if row["success_rate"] < MIN_SUCCESS_RATE:
        return f"replay of {task}: success in {row['success_rate']:.0%}, expected at least {MIN_SUCCESS_RATE:.0%}"
    if row["violation_rate"] > MAX_VIOLATION_RATE:
        return f"replay of {task}: violations in {row['violation_rate']:.0%}, expected at most {MAX_VIOLATION_RATE:.0%}"
    return ""
