"""Whether the process that runs the episode is alive."""

from __future__ import annotations

from enum import IntEnum

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Silence, Verdict


class Phase(IntEnum):
    """As in EpisodeState.msg."""

    IDLE = 0
    RESETTING = 1
    RUNNING = 2
    ENDED = 3


class SupervisorGuard:
    """The runner's heartbeat, needed while something moves the arm in an episode, and for every learned motion."""

    def __init__(self, hold_after: float, fault_after: float) -> None:
        self._heartbeat = Silence(hold_after, fault_after)
        self.phase = Phase.IDLE

    def announced(self, phase: int) -> None:
        """What /episode/state said. An unknown phase counts as IDLE, the strictest for a policy."""
        self.phase = Phase(phase) if phase in Phase.__members__.values() else Phase.IDLE

    def heartbeat(self, now: float) -> None:
        self._heartbeat.heard(now)

    def check(self, now: float, drive: Drive) -> Verdict:
        fault, hold = self._heartbeat.check(now, drive.moving and (drive.learned or drive.episode))
        if fault:
            return Verdict("supervisor_lost", f"no heartbeat of the episode's runner for "
                                              f"{self._heartbeat.age(now):.2f} s")
        return Verdict(hold="supervisor_late") if hold else CLEAR

    def cause(self, now: float) -> str:
        return ""

    def begin(self, now: float) -> None:
        """An episode whose gate was armed anew is over, even if its runner died without saying so."""
        self._heartbeat.check(now, False)
        self.phase = Phase.IDLE
