"""Processes that die, and processes that hang."""

from __future__ import annotations

import signal
import time

from tests.faults.fault import POLICY, Action, Fault
from tests.faults.world import FaultWorld

CAUSES = {"policy": "stale_command|supervisor_lost", "teleop": "lost_teleop|operator_stop",
          "camera": "camera_silent|stale_image", "safety_gate": "no target", "franka": "stale_state|stale_wrench",
          "fine_tuner": "lost_fine_tuner|operator_stop", "recorder": "lost_recorder|operator_stop"}


def _signal(name: str, number: int) -> Action:
    def inject(world: FaultWorld) -> float:
        began = time.monotonic()
        world.running.nodes[name].signal(number)
        return began

    return inject


FAULTS = tuple(Fault(f"{how}_{name}", POLICY, _signal(name, number), cause)
               for name, cause in CAUSES.items()
               for how, number in (("kill", signal.SIGKILL), ("hang", signal.SIGSTOP)))
