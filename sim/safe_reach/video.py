"""Videos for reports: H.264 in MP4, which every browser plays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from safe_policy_core.errors import ConfigurationError

VIDEO_SIZE = 384
"""Height and width of one picture [pixels]: 6 x 64, and a multiple of 16 as the codec likes it."""
FRAME_RATE = 10
"""Pictures per second: one control step each, so real time."""


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) by repeating the nearest pixel of a square or oblong picture."""
    rows = np.arange(size) * image.shape[0] // size
    columns = np.arange(size) * image.shape[1] // size
    return image[rows][:, columns]


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
