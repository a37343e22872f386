"""The files of DSPO's comparison: rows of discriminators, the table, and the settings that rows were made with."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safe_policy_core.errors import ConfigurationError
from sim.experiments.offline_safe_rl import LEGEND
from sim.experiments.rows import Row
from sim.experiments.table import table

COLUMNS = ("variant", "dataset", "seed", "recall", "accuracy", "f1", "pearson")


def require_settings(results: Path, option: str, settings: Mapping[str, Any]) -> None:
    """Keeps the settings of new results beside them, NAME.settings.json, and refuses other ones for results that exist.

    Rows are not made again when settings change, so they would be mixed. Results without such a file are of unknown
    settings: nothing is refused or written. option: by which other results are named. Raises `ConfigurationError`.
    """
    path, mine = results.with_suffix(".settings.json"), json.loads(json.dumps(settings))
    if not results.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(mine, indent=1) + "\n")
    elif path.exists():
        try:
            kept = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}: cannot be read ({error})") from error
        for name, value in mine.items():
            if kept.get(name) != value:
                raise ConfigurationError(f"{name}: the rows in {results} were made with {kept.get(name)!r}, got "
                                         f"{value!r}; name another {option}")


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Writes the table anew. What stands before it stays: it may say what no row knows."""
    before = f"\n{path.read_text()}".partition("\n|")[0].strip() if path.exists() else ""
    path.write_text(f"{before or LEGEND}\n\n{table(rows)}")


def read_quality(path: Path) -> set[tuple[str, str, int]]:
    """The (variant, dataset, seed) that a file has rows of."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {(line["variant"], line["dataset"], int(line["seed"])) for line in csv.DictReader(file)}


def append_quality(path: Path, row: tuple[Any, ...]) -> None:
    """Adds a row; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow([f"{value:.4f}" if isinstance(value, float) else value for value in row])
        file.flush()
        os.fsync(file.fileno())
