"""Serialises ROS messages without rclpy: for recordings made by the benchmark, tests and importers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from mcap_ros2._dynamic import serialize_dynamic

from data_collection.recording.definitions import message_definition


def encode_message(type_name: str, fields: Mapping[str, Any]) -> bytes:
    """CDR bytes of a "package/msg/Name" message given as nested mappings; fields left out have their default."""
    return _encoder(type_name)(fields)


@lru_cache(maxsize=64)
def _encoder(type_name: str) -> Callable[[Mapping[str, Any]], bytes]:
    return serialize_dynamic(type_name, message_definition(type_name))[type_name]


def stamp(time_ns: int) -> dict[str, int]:
    """builtin_interfaces/Time as a mapping."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return {"sec": seconds, "nanosec": nanoseconds}
