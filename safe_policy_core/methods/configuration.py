"""Configuration dataclasses to and from the JSON of a checkpoint's manifest."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from safe_policy_core.errors import CheckpointError

Config = TypeVar("Config")


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass (which may hold dataclasses) as JSON-ready values."""
    return dataclasses.asdict(config)


def from_json(kind: type[Config], data: Any, where: str = "config") -> Config:
    """Inverse of `to_json`. Raises `CheckpointError` naming missing and unexpected fields; nothing is defaulted."""
    if not isinstance(data, dict):
        raise CheckpointError(f"{where}: expected an object, got {data!r}")
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if wrong := sorted(set(names) ^ data.keys()):
        raise CheckpointError(f"{where}.{wrong[0]}: {'missing' if wrong[0] in names else 'unexpected'}; "
                              "the checkpoint is of another software version")
    values = {}
    for name in names:
        value, hint = data[name], hints[name]
        if dataclasses.is_dataclass(hint):
            value = from_json(typing.cast(type, hint), value, f"{where}.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        values[name] = value
    return kind(**values)
