"""Videos for reports: H.264 in MP4, which every browser plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from safe_policy_core.errors import ConfigurationError

VIDEO_SIZE = 384
"""Height and width of one picture [pixels]: 6 x 64, and a multiple of 16 as the codec likes it."""
STRIP_HEIGHT = 96
"""Of the strip below the pictures [pixels]; a multiple of 16 too."""
_WHITE, _ORANGE = (235, 235, 235), (255, 160, 60)
FRAME_RATE = 10
"""Pictures per second: one control step each, so real time."""


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) by repeating the nearest pixel of a square or oblong picture."""
    rows = np.arange(size) * image.shape[0] // size
    columns = np.arange(size) * image.shape[1] // size
    return image[rows][:, columns]


def side_by_side(left: np.ndarray, right: np.ndarray, titles: tuple[str, str], text: str,
                 curve: Sequence[float], length: int, least_top: float) -> np.ndarray:
    """Two pictures of `VIDEO_SIZE` with their titles above a strip with a text and a curve.

    curve: non-negative values up to now, of `length` in the end. least_top: value at the strip's upper edge unless
    the curve goes above it.
    """
    picture = np.concatenate([left, right], axis=1)
    for title, column in zip(titles, (8, VIDEO_SIZE + 8), strict=True):
        cv2.putText(picture, title, (column, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, _WHITE, 1, cv2.LINE_AA)
    strip = np.full((STRIP_HEIGHT, 2 * VIDEO_SIZE, 3), 24, np.uint8)
    top = max([least_top, *curve])
    columns = 8 + np.arange(len(curve)) * (2 * VIDEO_SIZE - 16) / max(1, length - 1)
    rows = STRIP_HEIGHT - 8 - np.asarray(curve) / top * (STRIP_HEIGHT - 36)
    cv2.polylines(strip, [np.stack([columns, rows], axis=1).astype(np.int32)], False, _ORANGE, 2, cv2.LINE_AA)
    cv2.putText(strip, text, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _WHITE, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def write_video(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """Writes (H, W, 3) uint8 pictures. Raises `ConfigurationError` when the file cannot be written."""
    if not frames:
        raise ConfigurationError(f"video {path}: there are no pictures to write")
    height, width, _ = frames[0].shape
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=FRAME_RATE, quality=7,
                                             macro_block_size=16, ffmpeg_log_level="error")
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        writer.close()
    except OSError as error:
        raise ConfigurationError(f"video {path}: cannot be written ({error})") from error
    return path
