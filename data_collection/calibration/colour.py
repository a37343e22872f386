"""Whether the picture is lit and coloured as it was when the policy's data was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_policy_core.errors import DatasetError

BRIGHT, DARK = 250, 5
"""Grey levels from which a pixel says nothing any more."""
MAX_LOST = 0.02
"""Share of such pixels that is reported."""


@dataclass(frozen=True)
class ColourCheck:
    """mean, deviation (3,) of red, green, blue [grey levels]; overexposed, underexposed: shares of pixels; difference
    (3,): mean minus the reference's, None without one; problems: a line each, for a person."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    overexposed: float
    underexposed: float
    difference: tuple[float, ...] | None
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


def check_colours(image: np.ndarray, reference: np.ndarray | None, tolerance: float) -> ColourCheck:
    """image, reference (H, W, 3) uint8 of one size: what the policy sees. tolerance [grey levels] of the means.

    Raises `DatasetError` for a reference of another size.
    """
    problems = []
    over, under = float((image >= BRIGHT).any(-1).mean()), float((image <= DARK).all(-1).mean())
    if over > MAX_LOST:
        problems.append(f"{over:.0%} of the picture is overexposed: shorten the exposure")
    if under > MAX_LOST:
        problems.append(f"{under:.0%} of the picture is black: lengthen the exposure, or uncover the lens")
    difference = None
    if reference is not None:
        if reference.shape != image.shape:
            raise DatasetError(f"reference: expected a picture of {image.shape}, got {reference.shape}")
        difference = _rounded(image.mean((0, 1)) - reference.mean((0, 1)))
        for name, value in zip(("red", "green", "blue"), difference, strict=True):
            if abs(value) > tolerance:
                problems.append(f"{name} is {value:+.0f} grey levels off the reference: check lights, exposure and "
                                "white balance")
    return ColourCheck(_rounded(image.mean((0, 1))), _rounded(image.std((0, 1))), round(over, 4), round(under, 4),
                       difference, tuple(problems))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 2) for value in values)
