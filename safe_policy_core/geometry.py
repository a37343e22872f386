"""Rigid poses. Quaternions are (x, y, z, w), as ROS and franky have them; rotation vectors are in radians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


def quaternion_from_rotation_vector(rotation_vector: np.ndarray) -> np.ndarray:
    """Exponential map, (3,) -> (4,)."""
    # Plain floats here and below: these run 100 times a second in the gate, and on three or four numbers
    # NumPy's overhead per call is several times the arithmetic.
    x, y, z = np.asarray(rotation_vector, float).tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    # sin(a/2)/a tends to 1/2; below 1e-8 the next term of its series is under double precision.
    factor = 0.5 if angle < 1e-8 else math.sin(angle / 2) / angle
    return np.array([x * factor, y * factor, z * factor, math.cos(angle / 2)])


def rotation_vector_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """Logarithm map, (4,) -> (3,), of length at most pi."""
    x, y, z, w = np.asarray(quaternion, float).tolist()
    if w < 0:
        x, y, z, w = -x, -y, -z, -w
    sine = math.sqrt(x * x + y * y + z * z)
    factor = 2.0 if sine < 1e-8 else 2 * math.atan2(sine, w) / sine
    return np.array([x * factor, y * factor, z * factor])


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product: the rotation b followed by a."""
    ax, ay, az, aw = np.asarray(a, float).tolist()
    bx, by, bz, bw = np.asarray(b, float).tolist()
    return np.array([aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx,
                     aw * bz + ax * by - ay * bx + az * bw, aw * bw - ax * bx - ay * by - az * bz])


def inverse(quaternion: np.ndarray) -> np.ndarray:
    return np.array([-1.0, -1.0, -1.0, 1.0]) * quaternion


@dataclass(frozen=True)
class Pose:
    """position (3,) [m] and unit quaternion (4,), of the tool in the robot's base frame."""

    position: np.ndarray
    quaternion: np.ndarray

    def to_vector(self, nominal: np.ndarray) -> np.ndarray:
        """(6,) xyz [m] and rotation vector [rad] of the orientation relative to `nominal`.

        Relative, because a tool that points down is half a turn from the base frame, where the
        rotation vector jumps between +pi and -pi: noise of a microradian would flip its sign.
        The rotation vector is expressed in the base frame.
        """
        return np.concatenate([self.position,
                               rotation_vector_from_quaternion(multiply(self.quaternion, inverse(nominal)))])

    @classmethod
    def from_vector(cls, vector: np.ndarray, nominal: np.ndarray) -> Pose:
        """Inverse of `to_vector`."""
        v = np.asarray(vector, float)
        return cls(v[:3].copy(), multiply(quaternion_from_rotation_vector(v[3:]), nominal))
