"""From a camera's picture to the policy's. Training files and the running policy must use the same function."""

from __future__ import annotations

import cv2
import numpy as np

from safe_policy_core.errors import SpecError

Crop = tuple[int, int, int, int]
"""top, left, height, width [pixels] in the raw picture."""


def fit_image(image: np.ndarray, size: tuple[int, int], crop: Crop | None = None) -> np.ndarray:
    """Cuts `crop` out of (H, W, 3) uint8 `image` and scales it to `size` (height, width).

    Without a crop, the largest centred window with the proportions of `size`, so that nothing is
    squeezed. Area averaging when shrinking: picking single pixels would lose thin things. A
    picture that fits already is returned as it is. Raises `SpecError` for a crop outside the picture.
    """
    height, width = image.shape[:2]
    top, left, rows, columns = crop or _centred(height, width, size)
    if top < 0 or left < 0 or rows < 1 or columns < 1 or top + rows > height or left + columns > width:
        raise SpecError(f"crop: expected a window (top, left, height, width) inside {height} x {width} pixels, "
                        f"got {(top, left, rows, columns)}")
    window = image[top:top + rows, left:left + columns]
    if (rows, columns) == tuple(size):
        return window
    shrinking = rows >= size[0] and columns >= size[1]
    return cv2.resize(window, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def _centred(height: int, width: int, size: tuple[int, int]) -> Crop:
    scale = min(height / size[0], width / size[1])
    rows, columns = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (height - rows) // 2, (width - columns) // 2, rows, columns
