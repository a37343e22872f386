"""Where the joints of an FR3 are: enough to draw the arm as a line."""

from __future__ import annotations

import numpy as np

_A = (0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088)
_D = (0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0)
_ALPHA = (0.0, -np.pi / 2, np.pi / 2, np.pi / 2, -np.pi / 2, np.pi / 2, np.pi / 2)
"""Denavit-Hartenberg parameters after Craig [m, rad], as Franka publishes them."""
_FLANGE = 0.107


def joint_points(angles: np.ndarray) -> np.ndarray:
    """(7,) joint angles [rad] -> (9, 3) points from the base over the joints to the flange [m, base frame]."""
    pose, points = np.eye(4), [np.zeros(3)]
    for a, d, alpha, angle in zip(_A, _D, _ALPHA, angles, strict=True):
        ca, sa, ct, st = np.cos(alpha), np.sin(alpha), np.cos(angle), np.sin(angle)
        pose = pose @ np.array([[ct, -st, 0, a], [st * ca, ct * ca, -sa, -d * sa], [st * sa, ct * sa, ca, d * ca],
                                [0, 0, 0, 1]])
        points.append(pose[:3, 3])
    points.append(pose[:3, 3] + _FLANGE * pose[:3, 2])
    return np.array(points)
