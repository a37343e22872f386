"""An arm without dynamics, for tests of the nodes around it."""

from __future__ import annotations

import time

import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_ros.arm.backend import ArmState
from safe_policy_ros.arm.config import JOINTS

TIME_CONSTANT = 0.05
"""[s] The tool approaches its target exponentially."""
NOMINAL = np.array([1.0, 0.0, 0.0, 0.0])


class FakeArm:
    """The tool follows the target with a first-order lag. Joints do not move."""

    def __init__(self, position: tuple[float, float, float] = (0.5, -0.105, 0.036)) -> None:
        self._vector = np.array([*position, 0.0, 0.0, 0.0])
        self._target: np.ndarray | None = None
        self._last = time.monotonic()

    def read(self) -> ArmState:
        now = time.monotonic()
        share = 1 - np.exp(-(now - self._last) / TIME_CONSTANT)
        self._last = now
        if self._target is not None:
            self._vector = self._vector + share * (self._target - self._vector)
        zeros = np.zeros(JOINTS)
        return ArmState(Pose.from_vector(self._vector, NOMINAL), zeros, zeros, zeros, np.zeros(6), now)

    def start(self) -> None:
        self._target = self._vector

    def track(self, pose: Pose) -> None:
        if self._target is None:
            raise RuntimeError("FakeArm.track: start must come first")
        self._target = pose.to_vector(NOMINAL)

    def stop(self) -> None:
        self._target = None

    @property
    def tracking(self) -> bool:
        return self._target is not None

    def recover(self) -> str:
        return ""

    def close(self) -> None:
        self.stop()
