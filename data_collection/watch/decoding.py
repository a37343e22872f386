"""CDR bytes to messages without rclpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mcap.records import Schema
from mcap.well_known import SchemaEncoding
from mcap_ros2.decoder import DecoderFactory

from data_collection.recording import message_definition
from data_collection.recording.damage import DAMAGE
from safe_policy_core.errors import DatasetError

Definitions = Callable[[str], str]
"""Message type -> its definition's text."""


class Decoder:
    """definitions: `message_definition` for a running graph, the file's own schemas for a recording."""

    def __init__(self, definitions: Definitions = message_definition) -> None:
        self._decoder = lru_cache(maxsize=None)(lambda kind: _decoder(kind, definitions(kind)))

    def __call__(self, type_name: str, data: bytes) -> Any:
        """The message. Raises `DatasetError` naming its type when the bytes are none."""
        try:
            return self._decoder(type_name)(data)
        except DAMAGE as error:
            raise DatasetError(f"{type_name}: cannot be decoded ({error!r})") from error


def _decoder(type_name: str, definition: str) -> Callable[[bytes], Any]:
    schema = Schema(id=1, name=type_name, encoding=SchemaEncoding.ROS2, data=definition.encode())
    decode = DecoderFactory().decoder_for("cdr", schema)
    assert decode is not None  # CDR with a ROS 2 schema is what the factory is for
    return decode
