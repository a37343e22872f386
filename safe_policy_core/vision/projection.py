"""A pinhole camera as one 3 x 4 matrix in the robot's base frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_policy_core.errors import ConfigurationError


@dataclass(frozen=True)
class Projection:
    """matrix: (3, 4), from homogeneous points in the base frame [m] to homogeneous image coordinates.

    Image coordinates run over [0, 1] from the left and upper edge of the picture, whatever its size,
    so that a resized picture keeps its projection. Raises `ConfigurationError` for another shape.
    """

    matrix: np.ndarray

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, float)
        if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
            raise ConfigurationError(f"projection: expected 3 x 4 finite numbers, got {np.asarray(self.matrix).shape}")
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def from_camera(cls, intrinsics: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> Projection:
        """From intrinsics (3, 3) in image coordinates, and the base frame's pose in the camera's.

        rotation (3, 3) and translation (3,) [m] take a point of the base frame to the camera's (x right, y down,
        z forward), as OpenCV has it.
        """
        return cls(np.asarray(intrinsics) @ np.column_stack([rotation, translation]))

    @classmethod
    def from_row(cls, numbers: tuple[float, ...]) -> Projection:
        """Inverse of `row`. Raises `ConfigurationError` unless there are twelve."""
        if len(numbers) != 12:
            raise ConfigurationError(f"projection: expected 12 numbers, the rows of a 3 x 4 matrix, got {len(numbers)}")
        return cls(np.reshape(numbers, (3, 4)))

    @property
    def row(self) -> tuple[float, ...]:
        """The matrix row by row, as configurations and episode metadata keep it."""
        return tuple(float(number) for number in self.matrix.ravel())

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image coordinates (..., 2) and depths (...) of points (..., 3) [m]."""
        points = np.asarray(points, float)
        image = np.concatenate([points, np.ones_like(points[..., :1])], -1) @ self.matrix.T
        return image[..., :2] / image[..., 2:], image[..., 2]

    def homography(self, height: float) -> np.ndarray:
        """(3, 3): homogeneous (x, y) at `height` [m] above the base frame's origin to image coordinates."""
        plane = self.matrix[:, [0, 1, 3]].copy()
        plane[:, 2] += self.matrix[:, 2] * height
        return plane

    def on_plane(self, coordinates: np.ndarray, height: float) -> np.ndarray:
        """(..., 2) points x, y [m] at `height` that are seen at image coordinates (..., 2)."""
        coordinates = np.asarray(coordinates, float)
        plane = np.concatenate([coordinates, np.ones_like(coordinates[..., :1])], -1) \
            @ np.linalg.inv(self.homography(height)).T
        return plane[..., :2] / plane[..., 2:]
