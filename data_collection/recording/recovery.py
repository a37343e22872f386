"""Turns a recording that was cut short (killed process, power failure) into a complete MCAP file."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mcap.records import Channel, Chunk, DataEnd, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from data_collection.recording.damage import DAMAGE
from data_collection.recording.writer import (
    PART_SUFFIX,
    PROGRESS_RECORD,
    SUMMARY_RECORD,
    new_writer,
    pack_metadata,
    sync_directory,
    unpack_metadata,
)
from safe_policy_core.errors import DatasetError

log = logging.getLogger(__name__)

QUARANTINE = "quarantine"
"""Folder beside the recordings for what cannot be recovered."""


@dataclass(frozen=True)
class Recovery:
    """path: the complete file. messages: how many it holds. lost_bytes: the unreadable rest of the part file."""

    path: Path
    messages: int
    lost_bytes: int


def unfinished(directory: Path | str) -> list[Path]:
    """The part files in `directory` that no living writer holds, oldest name first."""
    return [part for part in sorted(Path(directory).glob(f"*.mcap{PART_SUFFIX}")) if _is_free(part)]


def recover_all(directory: Path | str) -> list[Recovery]:
    """Completes every recording in `directory` that a crash left behind, and tells of each in the log.

    What holds nothing to save goes to `QUARANTINE` below `directory`: it is told of once, and nothing is deleted. A
    file that the disk refuses to copy, for instance a full one, stays for the next start.
    """
    found = []
    for part in unfinished(directory):
        try:
            result = recover(part)
        except DatasetError as error:
            _quarantine(part, error)
        except OSError as error:
            log.error("recovery: %s: %s; it stays for the next start", part, error)
        else:
            log.warning("recovered %s after a crash: %d messages, %d bytes lost", result.path, result.messages,
                        result.lost_bytes)
            found.append(result)
    return found


def recover(part: Path | str) -> Recovery:
    """Makes `NAME.mcap` of every whole message in `NAME.mcap.part`. A crash at any point leaves one of the two whole.

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
    temporary = path.with_name(f".{path.name}.recovering")
    with _held(part) as source:
        if source is None:
            raise DatasetError(f"{part}: still being written; stop its recorder first")
        try:
            with open(temporary, "wb") as target:
                messages, good_bytes = _copy(source, target)
                target.flush()
                os.fsync(target.fileno())
            lost = part.stat().st_size - good_bytes
            if not messages:
                raise DatasetError(f"{part}: holds no whole message")
            # In two steps: after the first, a crash leaves a part file that is whole and is recovered again.
            os.replace(temporary, part)
        finally:
            temporary.unlink(missing_ok=True)
        os.replace(part, path)
        sync_directory(path.parent)
    return Recovery(path, messages, lost)


def _quarantine(part: Path, why: DatasetError) -> None:
    """Moves a file to the quarantine, under a name that is free there, unless somebody has it by now."""
    with _held(part) as source:
        if source is None:
            return
        folder = part.parent / QUARANTINE
        names = (part.name, *(f"{number}-{part.name}" for number in range(1, 1000)))
        try:
            folder.mkdir(exist_ok=True)
            target = next(folder / name for name in names if not (folder / name).exists())
            os.replace(part, target)
            sync_directory(folder)
            sync_directory(part.parent)
        except OSError as error:
            log.error("recovery: %s; it cannot be moved to %s (%s)", why, folder, error)
        else:
            log.error("recovery: %s; moved to %s", why, target)


def _copy(source: BinaryIO, target: BinaryIO) -> tuple[int, int]:
    """Returns the number of messages copied and the bytes of `source` that were readable."""
    writer = new_writer(target)
    writer.start(profile="ros2", library="safe-policy recover")
    schemas: dict[int, int] = {0: 0}
    channels: dict[int, int] = {}
    topics: dict[int, str] = {}
    counts: dict[str, int] = {}
    end = 0
    complete, progress = False, {}
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
                if record.name == PROGRESS_RECORD:
                    progress = _unpacked(record)
            case _:
                pass
    if not complete:
        writer.add_metadata(SUMMARY_RECORD, pack_metadata({"messages": counts, **progress, "recovered": True}))
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
        for item in inner:
            # Behind the end of the data is only the index, which is made anew.
            yield item, source.seek(0, os.SEEK_END) if isinstance(item, DataEnd) else source.tell()
        if isinstance(record, DataEnd):
            return


def _unpacked(record: Metadata) -> dict[str, Any]:
    """Its content, nothing when it is damaged."""
    try:
        return unpack_metadata(record.metadata)
    except (ValueError, KeyError):
        return {}


@contextmanager
def _held(part: Path) -> Iterator[BinaryIO | None]:
    """The file, open for reading under its lock until the end of the context; None while somebody else has it."""
    try:
        file = open(part, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


def _is_free(part: Path) -> bool:
    with _held(part) as file:
        return file is not None
