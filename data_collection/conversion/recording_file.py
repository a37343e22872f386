"""Reads a recording without rclpy; every way in which the file can be bad is a `DatasetError`."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mcap.reader import McapReader, make_reader
from mcap.records import Channel, Schema
from mcap_ros2.decoder import DecoderFactory

from data_collection.conversion.chunks import StoredChunk, stamp_of
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
    topics: names of the topics that hold messages. types: topic -> message type.
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
                used = [channel for channel in summary.channels.values() if counts.get(channel.id)]
                self._chunks = sorted(summary.chunk_indexes, key=lambda index: index.chunk_start_offset)
                self._channels: dict[str, list[tuple[Channel, Schema | None]]] = {}
                for channel in used:
                    self._channels.setdefault(channel.topic, []).append(
                        (channel, summary.schemas.get(channel.schema_id)))
                self.topics = frozenset(self._channels)
                self.types = {topic: schema.name for topic, [(_, schema), *_] in self._channels.items() if schema}
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

    def messages(self, topic: str, keep: Callable[[int], bool] | None = None) -> Iterator[Any]:
        """Decoded messages of one topic in the order of recording. Raises `DatasetError` for a topic without any.

        keep: of messages that begin with a header, those are wanted whose stamp [ns] passes; the others are not even
        unpacked where that can be told from their beginning, which makes conversion several times as fast.
        """
        if topic not in self.topics:
            raise DatasetError(f"{self.path}: {topic}: no messages; recorded are {', '.join(sorted(self.topics))}")
        factory, decoders = DecoderFactory(), {}
        try:
            for channel, schema in self._channels[topic]:
                decoders[channel.id] = factory.decoder_for(channel.message_encoding, schema)
                if decoders[channel.id] is None:
                    raise DatasetError(f"{self.path}: {topic}: expected CDR messages with a ros2msg schema, "
                                       f"got {channel.message_encoding!r}")
            for number, data in self._data(topic, frozenset(decoders), keep):
                if keep is None or keep(stamp_of(data)):
                    yield decoders[number](data)
        except DAMAGE as error:
            raise self._damaged(error, f"{topic}: ") from error

    def _data(self, topic: str, channels: frozenset[int], keep: Callable[[int], bool] | None
              ) -> Iterator[tuple[int, bytes]]:
        """(channel, CDR data) of a topic."""
        with open(self.path, "rb") as file:
            if not self._chunks:  # other programs may write messages without chunks
                for _, channel, message in make_reader(file, validate_crcs=True).iter_messages([topic]):
                    yield channel.id, message.data
                return
            for index in self._chunks:
                if index.message_index_offsets and channels.isdisjoint(index.message_index_offsets):
                    continue
                chunk = StoredChunk.read(file, index.chunk_start_offset, index.chunk_length)
                if keep is None or not chunk.surely_unwanted(channels, keep):
                    yield from chunk.messages(channels)

    def _read_metadata(self, reader: McapReader) -> None:
        for record in reader.iter_metadata():
            if record.name == EPISODE_RECORD:
                self.episode = unpack_metadata(record.metadata)
            elif record.name == SUMMARY_RECORD:
                self.summary = unpack_metadata(record.metadata)

    def _damaged(self, error: BaseException, where: str = "") -> DatasetError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DatasetError(f"{self.path}: {where}truncated or damaged ({reason})")
