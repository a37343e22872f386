"""Which episodes the list shows, and in which order. Rows are those of `ReviewDataset.row`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safe_policy_core.data.labels import VERDICTS

Row = dict[str, Any]

FILTERS: dict[str, Callable[[Row], bool]] = {
    "all": lambda row: True,
    "open": lambda row: row.get("verdict") == "open" and not row["problem"],
    "accepted": lambda row: row.get("verdict") == "accept",
    "rejected": lambda row: row.get("verdict") == "reject",
    "with cost": lambda row: row.get("cost", 0) > 0,
    "without cost": lambda row: row.get("cost") == 0,
    "no success": lambda row: not row.get("success", True),
    "damaged": lambda row: bool(row["problem"]),
}
ORDERS: dict[str, Callable[[Row], Any]] = {
    "worst score first": lambda row: (row.get("score") is None, row.get("score"), row["name"]),
    "name": lambda row: row["name"],
    "highest cost first": lambda row: -row.get("cost", 0),
    "lowest reward first": lambda row: row.get("reward", 0),
    "longest first": lambda row: -row.get("steps", 0),
}


def chosen(rows: list[Row], wanted: str, order: str, text: str) -> list[Row]:
    """The rows that pass the filter `wanted` and hold `text` in name, task or note, in an order of `ORDERS`."""
    text = text.lower()
    return sorted((row for row in rows if FILTERS[wanted](row) and
                   text in f"{row['name']} {row.get('task', '')} {row.get('note', '')}".lower()), key=ORDERS[order])


def verdict_counts(rows: list[Row]) -> dict[str, int]:
    """How many episodes have which verdict, and how many cannot be used."""
    counts = {verdict: sum(row.get("verdict") == verdict and not row["problem"] for row in rows)
              for verdict in VERDICTS}
    return counts | {"problem": sum(bool(row["problem"]) for row in rows)}
