"""Who speaks on the gate's channels."""

from __future__ import annotations

from collections.abc import Hashable

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Verdict

MEMORY = 1.0
"""[s] A sender that was silent for so long may have been replaced by another."""


class PublisherGuard:
    """Two publishers on one channel cannot be told apart by what they say, so neither is obeyed.

    Seen in two ways: by the graph, which knows a silent one too, and by the sender of each message, which
    is there with the first message of a second one.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._senders: dict[str, tuple[Hashable, float]] = {}
        self._found = ""

    def counted(self, topic: str, count: int) -> None:
        """The graph says that `topic` has `count` publishers."""
        self._counts[topic] = count
        if count > 1:
            self._found = f"{topic} has {count}"

    def sent(self, topic: str, sender: Hashable, now: float) -> None:
        """A message on `topic` came from `sender`."""
        known = self._senders.get(topic)
        self._senders[topic] = sender, now
        if known is not None and known[0] != sender and now - known[1] < MEMORY:
            self._found = f"{topic} has messages of a second one"

    def check(self, now: float, drive: Drive) -> Verdict:
        found, self._found = self._found, ""
        return Verdict("two_publishers", found) if found else CLEAR

    def cause(self, now: float) -> str:
        for topic, count in self._counts.items():
            if count > 1:
                return f"two_publishers: {topic} has {count}; stop all but one"
        return ""

    def begin(self, now: float) -> None:
        self._found = ""
        self._senders.clear()
