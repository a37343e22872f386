"""The ChArUco board: its picture to print, and its pose in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from safe_policy_core.errors import ConfigurationError

MIN_CORNERS = 8
"""Fewer corners say too little about the tilt of the board."""


@dataclass(frozen=True)
class Intrinsics:
    """matrix (3, 3) [pixels] and distortion (5,) (k1, k2, p1, p2, k3) of a pinhole camera."""

    matrix: np.ndarray
    distortion: np.ndarray

    def __post_init__(self) -> None:
        if np.shape(self.matrix) != (3, 3) or not self.matrix[0][0] > 0:
            raise ConfigurationError("camera matrix: expected 3 x 3 with a focal length, got "
                                     f"{np.asarray(self.matrix).tolist()}; does the camera publish its camera_info?")


@dataclass(frozen=True)
class Board:
    """columns, rows: squares. square, marker [m]: edge lengths, measured on the print. dictionary: of cv2.aruco."""

    columns: int
    rows: int
    square: float
    marker: float
    dictionary: str = "DICT_5X5_100"

    def __post_init__(self) -> None:
        if not hasattr(cv2.aruco, self.dictionary):
            raise ConfigurationError(f"board dictionary: expected a name of cv2.aruco such as DICT_5X5_100, got "
                                     f"{self.dictionary!r}")
        if not 0 < self.marker < self.square or min(self.columns, self.rows) < 3:
            raise ConfigurationError("board: expected at least 3 x 3 squares, and markers smaller than squares, got "
                                     f"{self}")

    @cached_property
    def _charuco(self) -> cv2.aruco.CharucoBoard:
        dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))
        return cv2.aruco.CharucoBoard((self.columns, self.rows), self.square, self.marker, dictionary)

    @property
    def points(self) -> np.ndarray:
        """(N, 3) inner corners in the board's frame [m]: origin at its corner, z into the board."""
        return np.asarray(self._charuco.getChessboardCorners(), float).reshape(-1, 3)

    def picture(self, pixels_per_square: int) -> np.ndarray:
        """(H, W) uint8 to print, without a margin."""
        return self._charuco.generateImage((self.columns * pixels_per_square, self.rows * pixels_per_square))

    def detect(self, image: np.ndarray, camera: Intrinsics) -> tuple[np.ndarray, np.ndarray] | None:
        """(ids (N,), corners (N, 2) [pixels]) in an RGB or grey picture; None when too few are seen."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
        parameters = cv2.aruco.CharucoParameters()
        parameters.cameraMatrix, parameters.distCoeffs = camera.matrix, camera.distortion
        corners, ids, _, _ = cv2.aruco.CharucoDetector(self._charuco, parameters).detectBoard(grey)
        if ids is None or len(ids) < MIN_CORNERS:
            return None
        return np.asarray(ids).ravel(), np.asarray(corners, float).reshape(-1, 2)

    def pose(self, ids: np.ndarray, corners: np.ndarray, camera: Intrinsics) -> np.ndarray | None:
        """(4, 4) the board in the camera's frame, None when there is no solution."""
        found, rotation, translation = cv2.solvePnP(self.points[ids], corners, camera.matrix, camera.distortion,
                                                    flags=cv2.SOLVEPNP_ITERATIVE)
        if not found:
            return None
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(rotation)[0], translation.ravel()
        return pose
