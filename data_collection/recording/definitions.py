"""Message definitions as text, in the form MCAP's "ros2msg" schemas have, found without rclpy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from safe_policy_core.errors import ConfigurationError

SEPARATOR = "=" * 80
_PRIMITIVES = {"bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32",
               "int64", "uint64", "string", "wstring"}
_FIELD = re.compile(r"^\s*(?P<type>[A-Za-z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+\w+")


def default_search_path() -> tuple[Path, ...]:
    """Folders that hold `<package>/msg/<Name>.msg`: sourced workspaces, this environment, this repository's sources."""
    prefixes = [Path(prefix) / "share" for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
                if prefix]
    return (*prefixes, Path(sys.prefix) / "share", Path(__file__).parents[2] / "ros2_ws" / "src")


@lru_cache(maxsize=256)
def message_definition(type_name: str, search_path: tuple[Path, ...] | None = None) -> str:
    """The definition of "package/msg/Name" followed by those of every type in it, each after a "MSG:" line.

    Raises `ConfigurationError` naming a type whose .msg file is nowhere on the search path.
    """
    path = default_search_path() if search_path is None else search_path
    parts, queue, seen = [], [_short_name(type_name)], set()
    while queue:
        name = queue.pop(0)
        if name in seen:
            continue
        seen.add(name)
        text = _read(name, path)
        parts.append(text if not parts else f"MSG: {name}\n{text}")
        queue += _nested(text, name.split("/")[0])
    return f"\n{SEPARATOR}\n".join(parts)


def _short_name(type_name: str) -> str:
    parts = type_name.split("/")
    if len(parts) not in (2, 3):
        raise ConfigurationError(f"message type: expected package/msg/Name, got {type_name!r}")
    return f"{parts[0]}/{parts[-1]}"


def _read(name: str, search_path: Sequence[Path]) -> str:
    package, message = name.split("/")
    for folder in search_path:
        file = folder / package / "msg" / f"{message}.msg"
        if file.is_file():
            return file.read_text(encoding="utf-8").rstrip()
    raise ConfigurationError(f"message type {package}/msg/{message}: no definition found; source the ROS workspace "
                             "that has it (AMENT_PREFIX_PATH)")


def _nested(text: str, package: str) -> list[str]:
    names = []
    for line in text.splitlines():
        code = line.split("#", 1)[0]
        match = _FIELD.match(code)
        if match is None or match["type"] in _PRIMITIVES:
            continue
        kind = match["type"]
        names.append(kind if "/" in kind else f"std_msgs/{kind}" if kind == "Header" else f"{package}/{kind}")
    return [_short_name(name) for name in names]
