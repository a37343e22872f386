"""Raw image bytes, as cameras and ROS have them, to RGB arrays."""

from __future__ import annotations

import numpy as np

CHANNELS = {"rgb8": slice(None), "bgr8": slice(None, None, -1)}


def rgb_from_bytes(data: bytes | memoryview, height: int, width: int, step: int, encoding: str) -> np.ndarray:
    """(height, width, 3) uint8 RGB from rows of `step` bytes, padding removed.

    Raises `ValueError` for an encoding other than rgb8 and bgr8 and for data of the wrong length.
    """
    if encoding not in CHANNELS:
        raise ValueError(f"image encoding: expected one of {sorted(CHANNELS)}, got {encoding!r}")
    rows = np.frombuffer(data, np.uint8)
    if height < 1 or width < 1 or step < width * 3 or rows.size != height * step:
        raise ValueError(f"image data: expected {height} rows of {step} bytes for width {width}, got {rows.size} bytes")
    pixels = rows.reshape(height, step)[:, :width * 3].reshape(height, width, 3)
    return np.ascontiguousarray(pixels[..., CHANNELS[encoding]])
