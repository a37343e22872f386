"""What every guard is, and what it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class Drive:
    """Who asks for motion now.

    source: whose command is obeyed, "" for nobody's. moving: it asks for motion. learned: a learned policy
    does (and not the scripted way home between two episodes). episode: an episode runs.
    """

    source: str
    moving: bool
    learned: bool
    episode: bool


class Verdict(NamedTuple):
    """fault: latches, code and one line for a person. hold: the arm comes to rest and goes on by itself later."""

    fault: str = ""
    detail: str = ""
    hold: str = ""


CLEAR = Verdict()


class Guard(Protocol):
    """Times are steady seconds. Guards hear of the graph through methods of their own, and remember."""

    def check(self, now: float, drive: Drive) -> Verdict:
        """Asked in every tick while the gate is armed."""
        ...

    def cause(self, now: float) -> str:
        """One line why arming would fault again at once, or ""."""
        ...

    def begin(self, now: float) -> None:
        """The gate was armed: what was before no longer counts."""
        ...


class Silence:
    """How long a channel was silent while it was needed.

    A message that comes after a gap does not hide the gap: it is remembered until the next question.
    """

    def __init__(self, hold_after: float, fault_after: float) -> None:
        self._hold_after, self._fault_after = hold_after, fault_after
        self._last = float("-inf")
        self._needed_since = float("inf")
        self._gap = 0.0

    def heard(self, now: float) -> None:
        self._gap = max(self._gap, self._silent(now))
        self._last = now

    def age(self, now: float) -> float:
        """Seconds since the last message, infinite before the first."""
        return now - self._last

    def _silent(self, now: float) -> float:
        return now - max(self._last, self._needed_since)

    def check(self, now: float, needed: bool) -> tuple[bool, bool]:
        """(fault, hold). A channel that has just become needed holds until it speaks, and gets its time to do so."""
        if not needed:
            self._needed_since, self._gap = float("inf"), 0.0
            return False, False
        self._needed_since = min(self._needed_since, now)
        longest, self._gap = max(self._gap, self._silent(now)), 0.0
        return longest >= self._fault_after, self.age(now) >= self._hold_after
