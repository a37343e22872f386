"""An arm without dynamics, for tests of the nodes around it and for a graph without a simulator."""

from __future__ import annotations

import time

import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_ros.arm.backend import ArmState

TIME_CONSTANT = 0.05
"""[s] The tool approaches its target exponentially, about as fast as the impedance of franka.yaml does."""
NOMINAL = np.array([1.0, 0.0, 0.0, 0.0])
START = (0.5, -0.105, 0.036)
"""[m] SafeReach's start."""
_NONE = np.zeros(0)


class FakeArm:
    """The tool follows the target with a first-order lag. It has no joints, and nothing ever touches it."""

    def __init__(self, position: tuple[float, float, float] = START) -> None:
        self._vector = np.array([*position, 0.0, 0.0, 0.0])
        self._target: np.ndarray | None = None
        self._last = time.monotonic()

    def read(self) -> ArmState:
        now = time.monotonic()
        share = 1 - np.exp(-(now - self._last) / TIME_CONSTANT)
        self._last = now
        target = self._target
        if target is not None:
            self._vector = self._vector + share * (target - self._vector)
        return ArmState(Pose.from_vector(self._vector, NOMINAL), _NONE, _NONE, _NONE, np.zeros(6), now)

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

    @property
    def settings(self) -> dict[str, float | str]:
        return {"time_constant_s": TIME_CONSTANT}

    def close(self) -> None:
        self.stop()
