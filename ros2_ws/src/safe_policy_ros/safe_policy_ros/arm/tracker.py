"""Follows targets on an arm, and stops when they cease. Knows no ROS; the caller's thread drives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from safe_policy_core.geometry import Pose, inverse, multiply, rotation_vector_from_quaternion
from safe_policy_ros.arm.backend import ArmBackend


@dataclass(frozen=True)
class FollowConfig:
    """target_timeout [s]: silence after which a target that waits no longer counts, and the arm is said to be stopped.

    From the moment targets cease the arm brakes on the last one, which the gate keeps within a few centimetres; ending
    the control while it moves would release the impedance's spring and let the arm swing (measured on the simulated
    arm: 50 mm/s for 0.2 s). release_time [s]: silence after which the tracking ends; the arm is at rest by then.
    max_step [m], max_turn [rad]: a target farther than this from the one before, or at the start from the
    arm itself, is refused: it would be a blow.
    """

    target_timeout: float
    release_time: float
    max_step: float
    max_turn: float


class TargetFollower:
    """A second line behind the safety gate: it trusts neither that the gate lives nor what it says.

    One thread at a time may call in.
    """

    def __init__(self, arm: ArmBackend, config: FollowConfig) -> None:
        self._arm, self._config = arm, config
        self._target: Pose | None = None
        self._received = -np.inf
        self._reference: Pose | None = None
        self._was_tracking = self._held = False

    def put(self, target: Pose, now: float) -> None:
        """A target arrived at `now` (steady [s])."""
        self._target, self._received = target, now

    def drop(self) -> None:
        """Forgets the target; `update` ends the tracking."""
        self._target, self._received = None, -np.inf

    def update(self, measured: Pose | None, fault: str, now: float) -> str:
        """Starts, follows or stops. Returns a line for the log when something changed, else "".

        measured: the arm now, None when unknown. fault: the arm's own, "" when it takes commands.
        """
        silent = now - self._received
        if self._was_tracking and not self._arm.tracking:
            self._was_tracking, self._reference = False, None
            self._arm.stop()
            self.drop()
            return "the arm ended the tracking by itself; targets are refused until they start near the arm"
        if self._arm.tracking and (fault or silent > self._config.release_time):
            self._was_tracking, self._reference = False, None
            self._arm.stop()
            return f"tracking ended: {fault or f'no target for {silent:.2f} s'}"
        if silent > self._config.target_timeout:
            if self._held or not self._arm.tracking:
                return ""
            self._held = True
            return f"stopped: no target for {silent:.2f} s; the arm holds the last one"
        if self._target is None or fault:
            return ""
        self._held = False
        target, self._target = self._target, None
        reference = self._reference if self._arm.tracking else measured
        if reference is None:
            return ""
        if too_far := self._too_far(target, reference):
            whence = "the last one; tracking ended" if self._arm.tracking else "the arm"
            self._was_tracking, self._reference = False, None
            self._arm.stop()
            return f"target refused: {too_far} from {whence}"
        line = ""
        if not self._arm.tracking:
            self._arm.start()
            self._was_tracking, line = True, "tracking"
        self._arm.track(target)
        self._reference = target
        return line

    def _too_far(self, target: Pose, reference: Pose) -> str:
        step = float(np.linalg.norm(target.position - reference.position))
        turn = float(np.linalg.norm(rotation_vector_from_quaternion(
            multiply(target.quaternion, inverse(reference.quaternion)))))
        far = step > self._config.max_step or turn > self._config.max_turn
        return f"{step:.3f} m and {turn:.2f} rad" if far else ""
