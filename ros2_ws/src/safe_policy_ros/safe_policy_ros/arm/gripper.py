"""Franka's hand. It moves only when a person asks."""

from __future__ import annotations

from collections.abc import Callable

import franky

from safe_policy_core.errors import RobotUnavailableError

SPEED = 0.05
"""[m/s] of each finger: slow enough to pull a hand away."""
FORCE = 20.0
"""[N] of a grasp; the Franka hand allows 70 N for long."""


class FrankyGripper:
    """Implements `Gripper`."""

    def __init__(self, address: str) -> None:
        self._what = f"gripper at {address}"
        try:
            self._gripper = franky.Gripper(address)
        except (franky.Exception, RuntimeError) as error:
            raise RobotUnavailableError(f"{self._what}: {' '.join(str(error).split())}; is a Franka hand mounted and "
                                        "set in Desk?") from error

    @property
    def width(self) -> float:
        return float(self._gripper.width)

    def open(self) -> None:
        self._run(lambda: self._gripper.move(self._gripper.max_width, SPEED))

    def grasp(self) -> None:
        # Any width counts as held: whether something is between the fingers is for the caller to see.
        self._run(lambda: self._gripper.grasp(0.0, SPEED, FORCE, 0.0, self._gripper.max_width))

    def _run(self, motion: Callable[[], bool]) -> None:
        try:
            done = motion()
        except (franky.Exception, RuntimeError) as error:
            raise RobotUnavailableError(f"{self._what}: {' '.join(str(error).split())}") from error
        if not done:
            raise RobotUnavailableError(f"{self._what}: the motion did not end as it should")
