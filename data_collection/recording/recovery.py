"""Turns a recording that was cut short (killed process, power failure) into a complete MCAP file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mcap.records import Channel, Chunk, DataEnd, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.writer import CompressionType, Writer

from data_collection.recording.damage import DAMAGE
from data_collection.recording.writer import CHUNK_SIZE, PART_SUFFIX, SUMMARY_RECORD, pack_metadata, sync_directory
from safe_policy_core.errors import DatasetError


@dataclass(frozen=True)
class Recovery:
    """path: the complete file. messages: how many it holds. lost_bytes: the unreadable rest of the part file."""

    path: Path
    messages: int
    lost_bytes: int


def unfinished(directory: Path | str) -> list[Path]:
    """The part files in `directory` that no living writer holds, oldest name first."""
    return [part for part in sorted(Path(directory).glob(f"*.mcap{PART_SUFFIX}")) if not _is_held(part)]


def recover(part: Path | str) -> Recovery:
    """Copies every whole message of `NAME.mcap.part` to `NAME.mcap`; the part file goes when that is on disk.

    Raises `DatasetError` when the file is missing, still being written, holds no message, or when `NAME.mcap` exists.
    """
    part = Path(part)
    if not part.name.endswith(f".mcap{PART_SUFFIX}"):
        raise DatasetError(f"{part}: expected an unfinished recording, *.mcap{PART_SUFFIX}")
    path = part.with_name(part.name.removesuffix(PART_SUFFIX))
    if not part.is_file():
        raise DatasetError(f"{part}: no such file")
    if path.exists():
        raise DatasetError(f"{part}: {path.name} exists already; move one of the two away")
    if _is_held(part):
        raise DatasetError(f"{part}: still being written; stop its recorder first")
    temporary = path.with_name(path.name + ".recovering")
    with open(part, "rb") as source, open(temporary, "wb") as target:
        messages, good_bytes = _copy(source, target)
        target.flush()
        os.fsync(target.fileno())
    lost = part.stat().st_size - good_bytes
    if not messages:
        temporary.unlink()
        raise DatasetError(f"{part}: holds no whole message; delete it")
    os.replace(temporary, path)
    sync_directory(path.parent)
    part.unlink()
    return Recovery(path, messages, lost)


def _copy(source: BinaryIO, target: BinaryIO) -> tuple[int, int]:
    """Returns the number of messages copied and the bytes of `source` that were readable."""
    writer = Writer(target, chunk_size=CHUNK_SIZE, compression=CompressionType.LZ4)
    writer.start(profile="ros2", library="safe-policy recover")
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    topics: dict[int, str] = {}
    counts: dict[str, int] = {}
    end = 0
    complete = False
    for record, offset in _readable(source):
        end = offset
        match record:
            case Schema() if record.id not in schemas:
                schemas[record.id] = writer.register_schema(record.name, record.encoding, record.data)
            case Channel() if record.id not in channels and record.schema_id in schemas:
                topics[record.id] = record.topic
                channels[record.id] = writer.register_channel(record.topic, record.message_encoding,
                                                              schemas[record.schema_id], record.metadata)
            case Message() if record.channel_id in channels:
                writer.add_message(channels[record.channel_id], record.log_time, record.data, record.publish_time,
                                   record.sequence)
                counts[topics[record.channel_id]] = counts.get(topics[record.channel_id], 0) + 1
            case Metadata():
                writer.add_metadata(record.name, record.metadata)
                complete = complete or record.name == SUMMARY_RECORD
            case _:
                pass
    if not complete:
        writer.add_metadata(SUMMARY_RECORD, pack_metadata({"messages": counts, "recovered": True}))
    writer.finish()
    return sum(counts.values()), end


def _readable(source: BinaryIO) -> Iterator[tuple[McapRecord, int]]:
    """Records of the data section, in order, up to the first damage, each with the offset just after it."""
    records = StreamReader(source, emit_chunks=True, record_size_limit=1 << 30).records
    while True:
        try:
            record = next(records)
            inner = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else [record]
        except (StopIteration, *DAMAGE):
            return
        if isinstance(record, DataEnd):
            return
        for item in inner:
            yield item, source.tell()


def _is_held(part: Path) -> bool:
    with open(part, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
