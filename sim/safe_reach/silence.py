"""What a real control unit does when its client falls silent, and the simulator's does not."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger(__name__)

LOST_COMMANDS = 50
"""Exchanges, of 2 ms each, without a command after which a motion is aborted. A real arm allows 20 ms (communication
constraints violation); a simulated one, on a machine without a real-time kernel, is granted more."""


class SilenceReflex:
    """Aborts the motion of a client that is connected but sends nothing: a stopped process, or a cut cable.

    Without it the arm goes on with the last torque for ever.
    """

    def __init__(self, arm: Any) -> None:
        """arm: a `franky_sim` robot server."""
        self._arm = arm
        self._silent = 0
        self._handle = arm._handle_udp_command
        arm._handle_udp_command = self._heard

    def _heard(self, data: bytes) -> None:
        self._silent = 0
        self._handle(data)

    def step(self) -> None:
        """Once in every cycle, after the commands were taken in."""
        if not self._arm.current_motion_id:
            self._silent = 0
            return
        self._silent += 1
        if self._silent > LOST_COMMANDS:
            self._silent = 0
            log.warning("no command in %d exchanges while the arm moves: the motion is aborted", LOST_COMMANDS)
            try:
                self._arm.stop_motion()
            except OSError as error:  # the client cannot be told
                log.warning("the client is out of reach: %s", error)
                self._arm.reset_current_motion_id()
