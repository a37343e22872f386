"""Reads a bag in rosbag2's SQLite storage (`.db3`), the default of `ros2 bag record` up to ROS 2 Humble.

The file is a stranger's: only its two tables are read, without the views, triggers and functions that one could hide in
it. This storage has no checksums, so what is damaged and still decodes cannot be told from what was recorded.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mcap.records import Schema
from mcap_ros2.decoder import DecoderFactory

from data_collection.conversion.chunks import stamp_of
from data_collection.recording.damage import DAMAGE
from data_collection.recording.definitions import message_definition
from safe_policy_core.errors import DatasetError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class SqliteRecording:
    """One `.db3` file, with what `RecordingFile` says of itself: path, topics with messages, and their types."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetError(f"{path}: no such recording")
        self.episode: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        with self._opened() as database:
            rows = database.execute("SELECT id, name, type, serialization_format FROM topics WHERE id IN "
                                    "(SELECT DISTINCT topic_id FROM messages)").fetchall()
            self._definitions = self._recorded_definitions(database)
        self._topics: dict[str, list[int]] = {}
        self.types: dict[str, str] = {}
        for number, topic, kind, encoding in rows:
            if not isinstance(topic, str) or not isinstance(kind, str) or encoding != "cdr":
                raise DatasetError(f"{path}: topic {topic!r}: expected CDR messages, got {encoding!r}")
            if self.types.setdefault(topic, kind) != kind:
                raise DatasetError(f"{path}: topic {topic!r}: of two types, {self.types[topic]} and {kind}")
            self._topics.setdefault(topic, []).append(number)
        self.topics = frozenset(self._topics)

    def messages(self, topic: str, keep: Callable[[int], bool] | None = None) -> Iterator[Any]:
        """As `RecordingFile.messages`."""
        if topic not in self.topics:
            raise DatasetError(f"{self.path}: {topic}: no messages; recorded are {', '.join(sorted(self.topics))}")
        kind = self.types[topic]
        # Bags from before ROS 2 Iron do not say what their types are made of.
        text = self._definitions.get(kind) or message_definition(kind)
        marks = ",".join("?" * len(self._topics[topic]))
        with self._opened() as database:
            decode = DecoderFactory().decoder_for("cdr", Schema(1, text.encode(), "ros2msg", kind))
            assert decode is not None, "CDR with a ros2msg schema is what this decoder is for"
            unread = self.path.stat().st_size
            for (data,) in database.execute(f"SELECT data FROM messages WHERE topic_id IN ({marks}) ORDER BY id",
                                            self._topics[topic]):
                if not isinstance(data, bytes) or data.startswith(_ZSTD_MAGIC):
                    raise ValueError("packed messages; `ros2 bag convert` unpacks them" if isinstance(data, bytes)
                                     else f"expected bytes, got {type(data).__name__}")
                # Pages that are used again and again would hold more than the file does.
                if (unread := unread - len(data)) < 0:
                    raise ValueError("holds more than its size")
                if keep is None or keep(stamp_of(data)):
                    yield decode(data)

    @staticmethod
    def _recorded_definitions(database: sqlite3.Connection) -> dict[str, str]:
        """Message definitions by type, as far as the bag has them."""
        if "message_definitions" not in _tables(database):
            return {}
        return dict(database.execute("SELECT topic_type, encoded_message_definition FROM message_definitions "
                                     "WHERE encoding = 'ros2msg'"))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The database, read only; what is wrong with it becomes a `DatasetError` that names the file."""
        try:
            address = f"{self.path.resolve().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=1.0)) as database:
                database.execute("PRAGMA trusted_schema = OFF")
                database.execute("PRAGMA cell_size_check = ON")
                if missing := {"topics", "messages"} - _tables(database):
                    raise DatasetError(f"{self.path}: not a bag of ROS 2: no table {min(missing)}")
                yield database
        except (sqlite3.Error, *DAMAGE) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DatasetError(f"{self.path}: truncated or damaged ({reason})") from error


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND "
                                                 "sql NOT LIKE 'CREATE VIRTUAL%'")}
