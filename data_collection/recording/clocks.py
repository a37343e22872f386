"""How far the clocks of a recording are apart: the publishers' from the recorder's, and the recorder's from itself."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

_STAMP_FIRST = re.compile(r"(std_msgs/)?Header\s+\w+|builtin_interfaces/Time\s+\w+")
_STAMP = {0: struct.Struct(">iI"), 1: struct.Struct("<iI")}
_CDR_HEADER = 4


def has_stamp(definition: str) -> bool:
    """Whether a message of this definition begins with its time: a Header or a Time."""
    lines = (line.split("#", 1)[0].strip() for line in definition.splitlines())
    return bool(_STAMP_FIRST.fullmatch(next((line for line in lines if line and "=" not in line), "")))


def stamp_ns(data: bytes) -> int:
    """[ns] The time with which a CDR message of such a definition begins; 0 for none or too few bytes."""
    if len(data) < _CDR_HEADER + 8 or data[1] not in _STAMP:
        return 0
    seconds, nanoseconds = _STAMP[data[1]].unpack_from(data, _CDR_HEADER)
    return seconds * 1_000_000_000 + nanoseconds


@dataclass
class Delay:
    """Times from one event to another [ns]. The least is the offset of their two clocks and the fastest transport."""

    count: int = 0
    total: int = 0
    least: int = 0
    most: int = 0

    def add(self, delay: int) -> None:
        self.least = min(self.least, delay) if self.count else delay
        self.most = max(self.most, delay) if self.count else delay
        self.count += 1
        self.total += delay

    def to_json(self) -> list[float]:
        """[least, mean, most] in seconds."""
        return [self.least * 1e-9, self.total / self.count * 1e-9, self.most * 1e-9]


@dataclass
class ClockRecord:
    """Clock offsets of one recording, from the messages themselves and from looks at this machine's clocks.

    published: from a message's publication (its publisher's clock) to its receipt, by topic. stamped: from the
    stamp inside it (the device's clock, for a camera) to its receipt. A system clock that was set while it
    recorded shows as `system_step`, the largest change of system minus steady clock since the first look [ns].
    """

    published: dict[str, Delay] = field(default_factory=dict)
    stamped: dict[str, Delay] = field(default_factory=dict)
    system_minus_steady: int | None = None
    system_step: int = 0

    def message(self, topic: str, log_time: int, publish_time: int, stamp: int) -> None:
        """Times of one message [ns]; a stamp of 0 means that it has none."""
        self.published.setdefault(topic, Delay()).add(log_time - publish_time)
        if stamp:
            self.stamped.setdefault(topic, Delay()).add(log_time - stamp)

    def look(self, system: int, steady: int) -> None:
        """Both clocks of this machine at one moment [ns]."""
        difference = system - steady
        if self.system_minus_steady is None:
            self.system_minus_steady = difference
        step = difference - self.system_minus_steady
        if abs(step) > abs(self.system_step):
            self.system_step = step

    def to_json(self) -> dict[str, Any]:
        """Seconds; by topic [least, mean, most]."""
        return {"published_to_received": {topic: delay.to_json() for topic, delay in self.published.items()},
                "stamped_to_received": {topic: delay.to_json() for topic, delay in self.stamped.items()},
                "system_minus_steady": (self.system_minus_steady or 0) * 1e-9,
                "system_step": self.system_step * 1e-9}
