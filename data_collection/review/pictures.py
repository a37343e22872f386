"""An episode's frames as few JPEG files: a browser then draws any of them at once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from data_collection.review.player import COLUMNS, ROWS
from safe_policy_core.data.episode_file import read_pictures
from safe_policy_core.errors import DatasetError

MAX_SIDE = 256
"""Larger frames are shrunk to this [pixels]."""
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
"""Full colour resolution: in 64 x 64 pixels an obstacle is a few pixels of one colour."""


def sheet(path: Path, number: int) -> bytes:
    """Frames number * 32 to (number + 1) * 32, row by row. Raises `DatasetError` when the file has no such pictures."""
    size = COLUMNS * ROWS
    frames = _fitted(read_pictures(path, slice(number * size, (number + 1) * size)))
    if not len(frames):
        raise DatasetError(f"{path}: no frame {number * size}")
    count, height, width, _ = frames.shape
    grid = np.zeros((ROWS * COLUMNS, height, width, 3), np.uint8)
    grid[:count] = frames
    grid = grid.reshape(ROWS, COLUMNS, height, width, 3).swapaxes(1, 2).reshape(ROWS * height, COLUMNS * width, 3)
    return _jpeg(grid)


def thumbnail(path: Path, frames: int) -> bytes:
    """The first, the middle and the last of `frames` frames side by side."""
    return _jpeg(np.concatenate(_fitted(read_pictures(path, sorted({0, frames // 2, frames - 1}))), 1))


def _fitted(frames: np.ndarray) -> np.ndarray:
    scale = MAX_SIDE / max(frames.shape[1:3])
    if scale >= 1 or not len(frames):
        return frames
    size = max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def _jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _QUALITY)[1].tobytes()
