"""What a real control unit does when its client falls silent, and the simulator's does not."""

from __future__ import annotations

import logging

from sim.safe_reach.fci import ArmServer

log = logging.getLogger(__name__)

HELD_AFTER = 20
"""Cycles of 1 ms without a command after which the arm is held where it is. A real arm aborts the motion then
(communication constraints violation). The last torque would go on pushing it: 20 Nm in one joint turned that by
0.003 rad in 20 ms and by 0.064 rad in 100."""
LOST_COMMANDS = 100
"""Cycles without a command after which the motion is aborted: a machine without a real-time kernel is granted more."""


class SilenceReflex:
    """Holds, then aborts the motion of a client that is connected but sends nothing: a stopped process, or a cut cable.

    Without it the arm goes on with the last torque for ever.
    """

    def __init__(self, arm: ArmServer) -> None:
        self._arm = arm
        self._silent = 0
        self._handle = arm._handle_udp_command
        arm._handle_udp_command = self._heard

    def _heard(self, data: bytes) -> None:
        self._silent = 0
        self._arm.hold(False)
        self._handle(data)

    def step(self) -> None:
        """Once in every cycle, after the commands were taken in."""
        if not self._arm.current_motion_id:
            self._silent = 0
            self._arm.hold(False)
            return
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
