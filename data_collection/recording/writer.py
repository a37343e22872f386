"""Writes one episode as MCAP so that a crash costs at most the last fraction of a second."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, Writer

from data_collection.recording.clocks import ClockRecord, has_stamp, stamp_ns
from data_collection.recording.definitions import message_definition

log = logging.getLogger(__name__)

PART_SUFFIX = ".part"
EPISODE_RECORD = "safe_policy.episode"
"""Metadata record at the start of the file: what episode this is."""
SUMMARY_RECORD = "safe_policy.summary"
"""Metadata record at the end: message counts, drops and clock offsets by topic."""
PROGRESS_RECORD = "safe_policy.progress"
"""Metadata record every `PROGRESS_PERIOD`: drops and clock offsets so far, for a file that never gets its end."""

CHUNK_SIZE = 4096
"""[bytes] Whole chunks survive a kill; with the library's 1 MiB, seconds of data would be lost."""
FLUSH_PERIOD = 0.1
"""[s] How much a killed process loses at most."""
SYNC_PERIOD = 0.5
"""[s] How much a power failure loses at most."""
PROGRESS_PERIOD = 1.0
"""[s] How old the drops of a recovered recording may be."""


def pack_metadata(content: Mapping[str, Any]) -> dict[str, str]:
    """JSON-ready `content` as an MCAP metadata record, with the checksum that MCAP gives only to messages."""
    text = json.dumps(dict(content))
    return {"json": text, "crc32": f"{zlib.crc32(text.encode()):08x}"}


def unpack_metadata(record: Mapping[str, str]) -> dict[str, Any]:
    """Inverse of `pack_metadata`. Raises `ValueError` for altered content."""
    text = record["json"]
    if f"{zlib.crc32(text.encode()):08x}" != record["crc32"]:
        raise ValueError("metadata: checksum does not fit")
    return json.loads(text)


@dataclass
class TopicCount:
    """Messages written on one topic, and how many are missing by the publishers' sequence numbers."""

    messages: int = 0
    dropped: int = 0
    last_sequence: dict[object, int] = field(default_factory=dict)

    def add(self, sequence: int, publisher: object) -> None:
        """sequence 0 means unknown. A number that falls back is a restarted publisher, not a loss."""
        self.messages += 1
        if sequence:
            last = self.last_sequence.get(publisher)
            if last is not None and sequence > last + 1:
                self.dropped += sequence - last - 1
            self.last_sequence[publisher] = sequence


class McapEpisodeWriter:
    """One episode's file: `NAME.mcap.part` while it is written, `NAME.mcap` once it is complete and on disk.

    Thread-safe. A thread of its own hands what was written to the operating system every `FLUSH_PERIOD` and to
    the disk every `SYNC_PERIOD`, so that a caller never waits for the disk. The part file is locked while its writer
    lives, by which `recover` tells a crashed recording from a running one.

    Raises `OSError` from the constructor, `write` and `close` when the disk refuses; what was written by then
    stays in the part file.
    """

    def __init__(self, path: Path | str, metadata: Mapping[str, Any],
                 definition: Callable[[str], str] = message_definition) -> None:
        """metadata: JSON-ready description of the episode. definition: message type -> its definition's text."""
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + PART_SUFFIX)
        if self.path.exists():
            raise FileExistsError(f"{self.path}: exists already; recordings are never overwritten")
        self.counts: dict[str, TopicCount] = {}
        self.clocks = ClockRecord()
        self._definition = definition
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._stamped: set[str] = set()
        self._lock = threading.Lock()
        self._error: OSError | None = None
        self._open = False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _create_locked(self.part)
        self._writer = new_writer(self._file)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_on_disk, name="mcap-sync", daemon=True)
        try:
            self._writer.start(profile="ros2", library="safe-policy")
            self._writer.add_metadata(EPISODE_RECORD, pack_metadata(metadata))
            self._writer.flush()
            sync_directory(self.path.parent)
        except OSError:
            self._file.close()
            self.part.unlink(missing_ok=True)
            raise
        self._open = True
        self._thread.start()

    def write(self, topic: str, type_name: str, data: bytes, log_time_ns: int, publish_time_ns: int | None = None,
              sequence: int = 0, publisher: object = None) -> None:
        """Adds one CDR-serialised message. `sequence` is the publisher's own count, 0 when unknown."""
        with self._lock:
            self._check()
            channel = self._channels.get(topic)
            try:
                if channel is None:
                    channel = self._register(topic, type_name)
                self._writer.add_message(channel, log_time_ns, data, log_time_ns if publish_time_ns is None
                                         else publish_time_ns, sequence & 0xFFFFFFFF)
            except OSError as error:
                self._error = error
                raise
            self.counts[topic].add(sequence, publisher)
            self.clocks.message(topic, log_time_ns, log_time_ns if publish_time_ns is None else publish_time_ns,
                                stamp_ns(data) if topic in self._stamped else 0)

    def close(self, summary: Mapping[str, Any] | None = None) -> Path:
        """Completes the file, syncs it and gives it its final name. Returns that name."""
        self._end_thread()
        with self._lock:
            self._check()
            content = {"messages": {topic: count.messages for topic, count in self.counts.items()},
                       **self._progress(), **(summary or {})}
            try:
                self._writer.add_metadata(SUMMARY_RECORD, pack_metadata(content))
                self._writer.finish()
                self._writer.flush()
                os.fsync(self._file.fileno())
                os.replace(self.part, self.path)
                sync_directory(self.path.parent)
            except OSError as error:
                self._error = error
                raise
            finally:
                self._open = False
                self._file.close()
        return self.path

    def abort(self) -> None:
        """Gives up: closes the part file as it is, for `recover`. Never raises, may be called at any time."""
        self._end_thread()
        with self._lock:
            if self._open:
                self._open = False
                with contextlib.suppress(OSError):
                    self._writer.flush()
                self._file.close()

    @property
    def dropped(self) -> int:
        """Messages missing on all topics together."""
        return sum(count.dropped for count in self.counts.values())

    def _progress(self) -> dict[str, Any]:
        return {"dropped": {topic: count.dropped for topic, count in self.counts.items()},
                "clocks": self.clocks.to_json()}

    def _register(self, topic: str, type_name: str) -> int:
        schema, text = self._schemas.get(type_name), self._definition(type_name)
        if schema is None:
            schema = self._writer.register_schema(type_name, SchemaEncoding.ROS2, text.encode())
            self._schemas[type_name] = schema
        if has_stamp(text):
            self._stamped.add(topic)
        self._channels[topic] = self._writer.register_channel(topic, MessageEncoding.CDR, schema)
        self.counts[topic] = TopicCount()
        return self._channels[topic]

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._open:
            raise ValueError(f"{self.path}: the recording is closed")

    def _end_thread(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep_on_disk(self) -> None:
        synced = told = time.monotonic()
        while not self._stop.wait(FLUSH_PERIOD):
            now = time.monotonic()
            try:
                with self._lock:
                    if self._error is not None:
                        return
                    self.clocks.look(time.time_ns(), time.monotonic_ns())
                    if now - told >= PROGRESS_PERIOD:
                        told = now
                        self._writer.add_metadata(PROGRESS_RECORD, pack_metadata(self._progress()))
                    self._writer.flush()
                # From the clock: on a busy machine a wait of a tenth of a second may take much longer.
                if now - synced >= SYNC_PERIOD - FLUSH_PERIOD:
                    synced = now
                    os.fsync(self._file.fileno())
            except OSError as error:
                log.error("%s: %s", self.part, error)
                with self._lock:
                    self._error = error
                return


def new_writer(file: BinaryIO) -> Writer:
    """The writer of recordings and of recovered ones: chunks that survive, checksums of everything.

    Not compressed: a sensor's noise leaves LZ4 next to nothing to save, for a third of the recorder's processor time.
    """
    return Writer(file, chunk_size=CHUNK_SIZE, compression=CompressionType.NONE, enable_data_crcs=True)


def _create_locked(part: Path) -> BinaryIO:
    """A new file under an exclusive lock. Raises `FileExistsError` when there is one of that name."""
    while True:
        file = open(part, "xb", buffering=0)  # noqa: SIM115 - the writer closes it
        # Between the two a recovery may have found the empty file, not held by anybody, and moved it away.
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(part)):
                return file
        file.close()


def sync_directory(directory: Path) -> None:
    """Makes a new or changed name in `directory` survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
