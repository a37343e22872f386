"""Safety-Gymnasium's Point and Car brought to a wanted velocity in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np

YAW_GAIN, YAW_DAMPING = 1.5, 0.15
"""Turning command per rad of heading error, and per rad/s of the Car's turning rate."""
FORCE_GAIN = 1.0
"""Driving command per m/s of velocity error."""


class Vehicle:
    """Position, heading and velocity of a task's agent, and the actions that steer it.

    Point: action = (force along its heading, turning rate). Car: action = torques of the left and the right wheel.
    """

    def __init__(self, simulation: Any) -> None:
        self._agent = simulation.task.agent
        self._car = type(self._agent).__name__ == "Car"

    @property
    def position(self) -> np.ndarray:
        """(2,) [m]."""
        return np.array(self._agent.pos[:2])

    @property
    def velocity(self) -> np.ndarray:
        """(2,) [m/s]."""
        return np.array(self._agent.vel[:2])

    @property
    def heading(self) -> np.ndarray:
        """(2,) unit vector of the way forward: the Point's x axis, the Car's negative y axis."""
        matrix = self._agent.mat
        forward = -matrix[:2, 1] if self._car else matrix[:2, 0]
        return forward / max(float(np.linalg.norm(forward)), 1e-6)

    def action(self, wanted: np.ndarray) -> np.ndarray:
        """(2,) in [-1, 1], towards the velocity `wanted` (2,) [m/s]. Backwards where that is less of a turn."""
        heading, velocity = self.heading, self.velocity
        # More than the wanted velocity is asked for where the present one points elsewhere: it takes out the drift.
        aim = 2 * np.asarray(wanted, float) - velocity
        backwards = float(aim @ heading) < 0 and not self._car
        front = -heading if backwards else heading
        error = float(np.arctan2(front[0] * aim[1] - front[1] * aim[0], front @ aim))
        drive = FORCE_GAIN * (float(wanted @ front) - float(velocity @ front))
        if not self._car:
            return np.clip([-drive if backwards else drive, YAW_GAIN * error], -1, 1)
        turn = YAW_GAIN * error - YAW_DAMPING * self._yaw_rate()
        return np.clip([drive + turn, drive - turn], -1, 1)

    def _yaw_rate(self) -> float:
        return float(self._agent.get_sensor("gyro")[2])
