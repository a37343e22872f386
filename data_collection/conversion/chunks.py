"""Chunks of MCAP, read with a few system calls each. The MCAP library's reader takes one for every number."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import lz4.frame
import zstandard

_CHUNK, _MESSAGE = 0x06, 0x05
_CHUNK_HEAD = struct.Struct("<BQQQQI")
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_SIZE, _LONG_SIZE = struct.Struct("<I"), struct.Struct("<Q")
_STAMP_BEGIN, _STAMP_END = 4, 12
MAX_CHUNK = 1 << 30
"""[bytes] A chunk that claims to be larger is refused."""
_PEEK = 1 << 14
"""[bytes] How much of a large chunk is unpacked to see whether its picture is wanted."""


def stamp_of(data: bytes | memoryview) -> int:
    """The stamp [ns] of a message in CDR that begins with a std_msgs/Header. Raises `struct.error` when too short."""
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, _STAMP_BEGIN)
    return seconds * 1_000_000_000 + nanoseconds


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is in the file. size, crc: of the unpacked records. compression: "lz4", "zstd" or ""."""

    stored: memoryview
    compression: str
    size: int
    crc: int

    @classmethod
    def read(cls, file: BinaryIO, offset: int, length: int) -> StoredChunk:
        """The chunk record at `offset`. Raises `ValueError` or `struct.error` when there is none."""
        file.seek(offset)
        record = file.read(length)
        opcode, content, _, _, size, crc = _CHUNK_HEAD.unpack_from(record)
        if opcode != _CHUNK or content + _RECORD.size != len(record) or size > MAX_CHUNK:
            raise ValueError("no chunk where the index has one")
        name_end = _CHUNK_HEAD.size + _SIZE.size + _SIZE.unpack_from(record, _CHUNK_HEAD.size)[0]
        stored = memoryview(record)[name_end + _LONG_SIZE.size:]
        if _LONG_SIZE.unpack_from(record, name_end)[0] != len(stored):
            raise ValueError("length of a chunk does not fit")
        return cls(stored, record[_CHUNK_HEAD.size + _SIZE.size:name_end].decode(), size, crc)

    def surely_unwanted(self, channels: frozenset[int], keep: Callable[[int], bool]) -> bool:
        """Whether the beginning shows that the chunk holds no message of `channels` whose stamp passes `keep`.

        A recorder with small chunks closes one after each picture, so a large chunk ends with its only large message.
        """
        if self.compression not in ("", "lz4") or self.size <= 4 * _PEEK:
            return False
        head = lz4.frame.LZ4FrameDecompressor().decompress(self.stored, max_length=_PEEK) if self.compression \
            else self.stored
        place = 0
        while place + _RECORD.size + _MESSAGE_HEAD.size + _STAMP_END <= len(head):
            opcode, length = _RECORD.unpack_from(head, place)
            begin = place + _RECORD.size
            if opcode == _MESSAGE and _MESSAGE_HEAD.unpack_from(head, begin)[0] in channels \
                    and keep(stamp_of(memoryview(head)[begin + _MESSAGE_HEAD.size:])):
                return False
            place = begin + length
        return place == self.size

    def messages(self, channels: frozenset[int]) -> Iterator[tuple[int, bytes]]:
        """(channel, data) of some channels. Raises `ValueError` for content that its checksum does not fit."""
        if self.compression == "lz4":
            records = lz4.frame.decompress(self.stored)
        elif self.compression == "zstd":
            records = zstandard.ZstdDecompressor().decompress(self.stored, max_output_size=self.size)
        elif not self.compression:
            records = bytes(self.stored)
        else:
            raise ValueError(f"unknown compression {self.compression!r}")
        if len(records) != self.size or (self.crc and zlib.crc32(records) != self.crc):
            raise ValueError("checksum of a chunk does not fit")
        place = 0
        while place < len(records):
            opcode, length = _RECORD.unpack_from(records, place)
            begin = place + _RECORD.size
            place = begin + length
            if place > len(records):
                raise ValueError("a record reaches over the end of its chunk")
            if opcode == _MESSAGE:
                channel = _MESSAGE_HEAD.unpack_from(records, begin)[0]
                if channel in channels:
                    yield channel, records[begin + _MESSAGE_HEAD.size:place]
