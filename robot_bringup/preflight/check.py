"""The result of a check, and the table of all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

GREEN, RED, SKIPPED = "green", "red", "skipped"
_COLOURS = {GREEN: "\033[32m", RED: "\033[31m", SKIPPED: "\033[33m"}
_PLAIN = "\033[0m"


@dataclass(frozen=True)
class Check:
    """name: what was looked at. status: green, red or skipped. found: what came. remedy: what to do, "" when green."""

    name: str
    status: str
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def green(name: str, found: str) -> Check:
    return Check(name, GREEN, found)


def red(name: str, found: str, remedy: str) -> Check:
    return Check(name, RED, found, remedy)


def perform(name: str, look: Callable[[], Check]) -> Check:
    """A check that breaks is a red one: nothing was seen that could be trusted."""
    try:
        return look()
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        return red(name, line, "the check itself failed; mend that first")


def table(checks: Sequence[Check], colours: bool = False) -> str:
    """One line a check, and below each red one what to do."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        status = f"{check.status:<7}"
        if colours:
            status = _COLOURS[check.status] + status + _PLAIN
        lines.append(f"{check.name:<{width}}  {status}  {check.found}")
        if check.status == RED:
            lines.append(f"{'':<{width}}  {'':<7}  -> {check.remedy}")
    count = sum(check.status == RED for check in checks)
    skipped = sum(check.status == SKIPPED for check in checks)
    lines.append(f"\n{count} red" + (f", {skipped} skipped" if skipped else "") +
                 (": do not arm the robot" if count else "; the rest is green"))
    return "\n".join(lines)
