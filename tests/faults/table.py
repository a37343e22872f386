"""What was measured, run by run, and the table made of it."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.fault import Outcome

COLUMNS = ("fault", "runs", "stop_ms_median", "stop_ms_max", "finished_episodes_lost", "diagnosed", "rearm_required")
REACTION = 0.150
"""[s] The bar: at rest within this and the braking, which is the worst of the operator's own stop."""
BASELINE = "operator_stop"


class Runs:
    """A file with one line of JSON for each run, so that a suite that was interrupted goes on where it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def count(self, fault: str) -> int:
        return sum(row["fault"] == fault for row in self._rows)

    def add(self, fault: str, outcome: Outcome) -> None:
        row = {"fault": fault, **asdict(outcome)}
        row["stop"] = None if math.isinf(outcome.stop) else round(outcome.stop, 4)
        self._rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def table(self, order: Sequence[str]) -> list[dict[str, Any]]:
        """One row for each fault; a stop that never came is an infinite one."""
        table = []
        for fault in order:
            rows = [row for row in self._rows if row["fault"] == fault]
            if not rows:
                continue
            stops = [1e3 * (math.inf if row["stop"] is None else row["stop"]) for row in rows]
            table.append(dict(zip(COLUMNS, (
                fault, len(rows), round(statistics.median(stops)) if math.isfinite(max(stops)) else math.inf,
                round(max(stops)) if math.isfinite(max(stops)) else math.inf, max(row["lost"] for row in rows),
                f"{sum(row['diagnosed'] for row in rows)}/{len(rows)}",
                f"{sum(row['rearm'] for row in rows)}/{len(rows)}"), strict=True)))
        return table


def failures(table: Sequence[dict[str, Any]]) -> list[str]:
    """What falls short of the bar, one line each."""
    braking = next((row["stop_ms_max"] for row in table if row["fault"] == BASELINE), 0)
    bar = 1e3 * REACTION + braking
    lines = []
    for row in table:
        name, runs = row["fault"], row["runs"]
        if row["stop_ms_max"] > bar:
            lines.append(f"{name}: at rest after {row['stop_ms_max']} ms, the bar is {bar:.0f} ms")
        if row["finished_episodes_lost"]:
            lines.append(f"{name}: {row['finished_episodes_lost']} finished episodes lost")
        lines += [f"{name}: {what} in {row[what]} runs" for what in ("diagnosed", "rearm_required")
                  if row[what] != f"{runs}/{runs}"]
    return lines


def write_csv(path: Path, table: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table)


def markdown(table: Sequence[dict[str, Any]]) -> str:
    rows = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    rows += ["| " + " | ".join(str(row[column]) for column in COLUMNS) + " |" for row in table]
    return "\n".join(rows) + "\n"
