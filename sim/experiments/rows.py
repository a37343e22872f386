"""Results as rows of a CSV file, each written when it is there, and read again to go on."""

from __future__ import annotations

import csv
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from safe_policy_core.errors import ConfigurationError


@dataclass(frozen=True)
class Row:
    """One trained policy in one dataset's environment.

    target_cost: the limit it was compared with, mean cost of an episode. normalized_reward: 0 is the lowest and 1
    the highest return in the dataset. normalized_cost: 1 is the limit. Both are means over `episodes`.
    """

    method: str
    dataset: str
    seed: int
    target_cost: float
    normalized_reward: float
    normalized_cost: float
    episodes: int

    @property
    def key(self) -> tuple[str, str, int, float]:
        """What makes a row unique."""
        return self.method, self.dataset, self.seed, self.target_cost


COLUMNS = [field.name for field in fields(Row)]
_KINDS = {"method": str, "dataset": str, "seed": int, "episodes": int}
AnyRow = TypeVar("AnyRow")


def read_rows(path: Path, kind: type[AnyRow] = Row) -> list[AnyRow]:  # type: ignore[assignment]
    """The rows of a file, none where there is no file. kind: their dataclass, whose fields are the columns.

    Raises `ConfigurationError` for a file of another kind.
    """
    columns = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ConfigurationError(f"{path}: expected the columns {','.join(columns)}, got "
                                     f"{','.join(reader.fieldnames or ())}")
        try:
            return [kind(**{name: _KINDS.get(name, float)(line[name]) for name in columns}) for line in reader]
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path}: line {reader.line_num}: {error}") from error


def append(path: Path, row: Any) -> None:
    """Adds a row; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(row)), lineterminator="\n")
        if new:
            writer.writeheader()
        values = asdict(row)
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in values.items()})
        file.flush()
        os.fsync(file.fileno())
