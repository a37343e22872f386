"""What franka_node needs of an arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from safe_policy_core.geometry import Pose


@dataclass(frozen=True)
class ArmState:
    """One reading. pose: the tool in the base frame. joint_* (7,): [rad], [rad/s], [Nm], or (0,) of an arm without
    joints. wrench (6,): external force and torque at the tool in the base frame [N, Nm], None where nothing measures
    it. time: the arm's own clock [s]. fault: why the arm takes no commands (its error names, or its mode), "" when it
    does. success_rate: share of the last 100 control commands that reached the arm in time, None when not controlled
    or not known.
    """

    pose: Pose
    joint_positions: np.ndarray
    joint_velocities: np.ndarray
    joint_efforts: np.ndarray
    wrench: np.ndarray | None
    time: float
    fault: str = ""
    success_rate: float | None = None


class ArmBackend(Protocol):
    """`read` may run beside the others in another thread; the others come from one thread.

    All raise `RobotUnavailableError` when the arm does not answer. Errors of the arm end the
    tracking and stay until `recover`; nothing clears them on its own.
    """

    def read(self) -> ArmState:
        ...

    def start(self) -> None:
        """Begins to track, with the present pose as the first target. Checks first that the arm has the settings
        with which it is to move, and raises when it has not."""
        ...

    def track(self, pose: Pose) -> None:
        """A new target of the tool. Only after `start`."""
        ...

    def stop(self) -> None:
        """Ends the tracking and brings the arm to rest. May take a second. May be called when not tracking."""
        ...

    @property
    def tracking(self) -> bool:
        """False also when the arm ended the tracking by itself."""
        ...

    def recover(self) -> str:
        """Clears the arm's errors at a person's request. Returns "" or why they stay."""
        ...

    @property
    def settings(self) -> Mapping[str, float | str]:
        """What the arm runs with, for the diagnostics. Names carry units."""
        ...

    def close(self) -> None:
        """Stops and disconnects."""
        ...


class Gripper(Protocol):
    """Calls block until the fingers have moved, up to a few seconds.

    All raise `RobotUnavailableError` when the gripper does not answer or refuses.
    """

    @property
    def width(self) -> float:
        """Distance between the fingers [m]."""
        ...

    def open(self) -> None:
        ...

    def grasp(self) -> None:
        """Closes until the fingers hold something, or meet."""
        ...
