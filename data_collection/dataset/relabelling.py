"""Labels for many episodes at once, appended to the label layer; episode files are never changed."""

from __future__ import annotations

import csv
import datetime
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_collection.dataset.files import inside
from data_collection.dataset.summary import Row
from data_collection.labels import suggested_cost
from safe_policy_core.data.labels import LEVELS, Label, LabelLayers
from safe_policy_core.errors import DatasetError, printable

COLUMNS = ("file", "kind", "first", "end", "value")


@dataclass(frozen=True)
class Change:
    """reward or cost (`kind`) of an episode becomes `value` in the steps first <= step < end."""

    row: Row
    kind: str
    first: int
    end: int
    value: float


def from_table(folder: Path, table: Path, rows: Iterable[Row]) -> list[Change]:
    """The changes in a CSV file with the columns `COLUMNS`; file names are relative to the dataset's folder.

    Raises `DatasetError` naming the line.
    """
    by_path = {row.path: row for row in rows}
    changes = []
    try:
        with open(table, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or tuple(reader.fieldnames) != COLUMNS:
                raise DatasetError(f"{table}: expected the columns {','.join(COLUMNS)}, got {reader.fieldnames}")
            for line in reader:
                row = by_path.get(inside(folder, line["file"] or ""))
                if row is None:
                    raise DatasetError(f"{table}: line {reader.line_num}: {printable(line['file'])}: not a usable "
                                       f"episode of {folder}")
                change = Change(row, line["kind"], int(line["first"]), int(line["end"]), float(line["value"]))
                if change.kind not in LEVELS or not math.isfinite(change.value) or (
                        change.kind == "cost" and change.value < 0):
                    raise DatasetError(f"{table}: line {reader.line_num}: {printable(change.kind)} {change.value}: "
                                       "expected reward or cost and a finite number, for a cost >= 0")
                if not 0 <= change.first < change.end <= len(row.episode):
                    raise DatasetError(f"{table}: line {reader.line_num}: steps {change.first} to {change.end}, "
                                       f"expected some of the episode's {len(row.episode)}")
                changes.append(change)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DatasetError(f"{table}: line {reader.line_num if 'reader' in locals() else 0}: {error}") from error
    return changes


def by_paper_rule(rows: Iterable[Row]) -> list[Change]:
    """FOSP's rule (figure 9): cost from the first contact until the obstacle is at rest, nothing else costs."""
    changes = []
    for row in rows:
        intervals = suggested_cost(row.path, row.episode)
        changes.append(Change(row, "cost", 0, len(row.episode), 0.0))
        changes += [Change(row, "cost", first, end, 1.0) for first, end in intervals]
    return changes


def write_labels(changes: Iterable[Change], who: str, source: str) -> int:
    """Appends the changes to the layers beside their files, one undoable act an episode. Returns how many."""
    layers = LabelLayers()
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    by_row: dict[Path, list[Change]] = {}
    for change in changes:
        by_row.setdefault(change.row.path, []).append(change)
    for path, group in by_row.items():
        act = uuid.uuid4().hex
        layers.beside(path).add(Label(act, change.row.recording, path.name, change.kind, source, who, when,
                                      change.value, (change.first, change.end)) for change in group)
    return sum(map(len, by_row.values()))
