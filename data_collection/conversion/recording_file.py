"""Reads a recording without rclpy; every way in which the file can be bad is a `DatasetError`."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcap.reader import McapReader, make_reader
from mcap_ros2.decoder import DecoderFactory

from data_collection.recording.damage import DAMAGE
from data_collection.recording.writer import EPISODE_RECORD, PART_SUFFIX, SUMMARY_RECORD, unpack_metadata
from safe_policy_core.errors import DatasetError

_FOOTER = struct.Struct("<BQQQI")
_MAGIC_SIZE = 8


def _check_index(file: BinaryIO) -> None:
    """Raises `ValueError` when the index at the file's end is not what its checksum says.

    The MCAP library checks the messages only, and message types are taken from the index.
    """
    end = file.seek(0, os.SEEK_END) - _MAGIC_SIZE
    file.seek(end - _FOOTER.size)
    _, _, start, _, expected = _FOOTER.unpack(file.read(_FOOTER.size))
    if start and expected:
        file.seek(start)
        if zlib.crc32(file.read(end - 4 - start)) != expected:
            raise ValueError("checksum of the index does not fit")
    file.seek(0)


class RecordingFile:
    """One finished `.mcap` file.

    episode: what the recorder wrote at the start. summary: message counts and drops, written at the end.
    topics: names of the topics that hold messages.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.name.endswith(PART_SUFFIX):
            raise DatasetError(f"{path}: an unfinished recording; `safe-policy convert` on its folder recovers it")
        if not self.path.is_file():
            raise DatasetError(f"{path}: no such recording")
        self.episode: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        try:
            with open(self.path, "rb") as file:
                _check_index(file)
                reader = make_reader(file, validate_crcs=True)
                summary = reader.get_summary()
                if summary is None or summary.statistics is None:
                    raise DatasetError(f"{path}: truncated (no summary at its end); rename it to "
                                       f"{self.path.name}{PART_SUFFIX} and run `safe-policy convert` on its folder")
                counts = summary.statistics.channel_message_counts
                self.topics = frozenset(channel.topic for channel in summary.channels.values()
                                        if counts.get(channel.id))
                self._read_metadata(reader)
        except DAMAGE as error:
            raise self._damaged(error) from error

    def raw(self, topics: Iterable[str]) -> Iterator[tuple[int, str, str, bytes]]:
        """(log time [ns], topic, message type, CDR data) of some topics in the order of time."""
        try:
            with open(self.path, "rb") as file:
                for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages(list(topics)):
                    yield message.log_time, channel.topic, schema.name if schema else "", message.data
        except DAMAGE as error:
            raise self._damaged(error) from error

    def messages(self, topic: str) -> Iterator[Any]:
        """Decoded messages of one topic in the order of recording. Raises `DatasetError` for a topic without any."""
        if topic not in self.topics:
            raise DatasetError(f"{self.path}: {topic}: no messages; recorded are {', '.join(sorted(self.topics))}")
        factory = DecoderFactory()
        try:
            with open(self.path, "rb") as file:
                for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages([topic]):
                    decode = factory.decoder_for(channel.message_encoding, schema)
                    if decode is None:
                        raise DatasetError(f"{self.path}: {topic}: expected CDR messages with a ros2msg schema, "
                                           f"got {channel.message_encoding!r}")
                    yield decode(message.data)
        except DAMAGE as error:
            raise self._damaged(error, f"{topic}: ") from error

    def _read_metadata(self, reader: McapReader) -> None:
        for record in reader.iter_metadata():
            if record.name == EPISODE_RECORD:
                self.episode = unpack_metadata(record.metadata)
            elif record.name == SUMMARY_RECORD:
                self.summary = unpack_metadata(record.metadata)

    def _damaged(self, error: BaseException, where: str = "") -> DatasetError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DatasetError(f"{self.path}: {where}truncated or damaged ({reason})")
