"""The simulated arm and its client, cycle by cycle: no step of the physics without an answer to the state before it.

A real control unit and its client keep 1 kHz on computers of their own. Here both share a machine that may stand still
for milliseconds, and going on meanwhile with old torques is control with a delay that no arm has. So simulated time
waits for a client that is late, and the arm of one that is silent is held, as a real control unit aborts its motion.
"""

from __future__ import annotations

import logging

from sim.safe_reach.arm import PERIOD
from sim.safe_reach.fci import ArmServer

log = logging.getLogger(__name__)

HELD_AFTER = 20
"""Cycles of 1 ms that simulated time waits for an answer; without one the arm is held where it is. A real arm aborts
the motion then (communication constraints violation)."""
LOST_COMMANDS = 100
"""Cycles without an answer after which the motion is aborted: a machine without a real-time kernel is granted more."""


class Lockstep:
    """Takes in what a client sends, once in every cycle."""

    def __init__(self, arm: ArmServer) -> None:
        self._arm = arm
        self._answered = -1
        self._silent = 0
        self._in_touch = False
        self._handle = arm._handle_udp_command
        arm._handle_udp_command = self._heard

    def _heard(self, data: bytes) -> None:
        self._answered = int.from_bytes(data[:8], "little")
        self._silent, self._in_touch = 0, True
        self._arm.hold(False)
        self._handle(data)

    def exchange(self) -> None:
        """Takes in commands; of a client that moves the arm, the one that answers the last state."""
        while True:
            # Counted in waits, not by a clock: while the whole machine stands still nobody is silent.
            if self._owed and not self._arm.await_datagram(PERIOD):
                self._silent += 1
                self._in_touch = self._silent < HELD_AFTER
                continue
            self._arm.process_commands()
            if not self._owed:
                break
        if not self._arm.current_motion_id:
            self._silent, self._in_touch = 0, False
            self._arm.hold(False)
        elif not self._in_touch:
            self._without_answer()

    @property
    def _owed(self) -> bool:
        return self._in_touch and self._arm.torque_controlled and self._answered < self._arm.last_state

    def _without_answer(self) -> None:
        self._silent += 1
        self._arm.hold(self._silent > HELD_AFTER)
        if self._silent > LOST_COMMANDS:
            self._silent = 0
            log.warning("no command for %d ms while the arm moves: the motion is aborted", LOST_COMMANDS)
            try:
                self._arm.stop_motion()
            except OSError as error:  # the client cannot be told
                log.warning("the client is out of reach: %s", error)
                self._arm.reset_current_motion_id()
