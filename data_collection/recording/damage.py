"""What reading a damaged recording raises; the MCAP library has no common class for it."""

import struct
import zlib

import zstandard
from mcap.exceptions import McapError
from mcap_ros2._vendor.rosidl_adapter.parser import InvalidSpecification

# Seeks to offsets before the file (OSError), lengths beyond memory, text that is none (ValueError),
# lz4's failures (RuntimeError), definitions with unknown types (KeyError, NotImplementedError), and so on.
DAMAGE: tuple[type[Exception], ...] = (
    McapError, OSError, ValueError, struct.error, zlib.error, zstandard.ZstdError, EOFError, KeyError, IndexError,
    RuntimeError, MemoryError, OverflowError, NotImplementedError, InvalidSpecification)
