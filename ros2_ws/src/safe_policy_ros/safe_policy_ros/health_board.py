"""All nodes' health in one place, as ROS's diagnostic_aggregator gives it where that is installed."""

from __future__ import annotations

from collections.abc import Iterable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from safe_policy_ros.messages import ns_to_stamp

ROOT = "/safe_policy"
WORDS = {DiagnosticStatus.OK: "OK", DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR",
         DiagnosticStatus.STALE: "STALE"}


class HealthBoard:
    """The newest status of every name. expected: who must be heard; whoever is silent for `stale_after` [s] is STALE.

    Times are steady seconds of receipt: a step of the system's clock makes nobody look dead or alive.
    """

    def __init__(self, expected: Iterable[str], stale_after: float) -> None:
        self._stale_after = stale_after
        self._newest: dict[str, tuple[DiagnosticStatus | None, float]] = dict.fromkeys(expected, (None, float("-inf")))

    def add(self, message: DiagnosticArray, now: float) -> None:
        for status in message.status:
            self._newest[status.name] = status, now

    def summary(self, now: float) -> DiagnosticStatus:
        """The worst of all, named. STALE counts as the worst: a node that says nothing may have any trouble."""
        rows = [(name, *self._judge(name, now)) for name in sorted(self._newest)]
        level = max((level for _, level, _ in rows), default=DiagnosticStatus.OK)
        bad = [f"{name} {WORDS[level]}: {message}" for name, level, message in rows if level != DiagnosticStatus.OK]
        return DiagnosticStatus(level=level, name=ROOT, message="; ".join(bad) or "all well",
                                values=[KeyValue(key=name, value=WORDS[level]) for name, level, _ in rows])

    def array(self, now: float, now_ns: int) -> DiagnosticArray:
        """The summary, then every status under its name below `ROOT`."""
        message = DiagnosticArray(status=[self.summary(now)])
        for name in sorted(self._newest):
            level, text = self._judge(name, now)
            status = self._newest[name][0]
            message.status.append(DiagnosticStatus(
                level=level, name=f"{ROOT}/{name}", message=text, hardware_id=status.hardware_id if status else "",
                values=status.values if status else []))
        message.header.stamp = ns_to_stamp(now_ns)
        return message

    def _judge(self, name: str, now: float) -> tuple[bytes, str]:
        status, heard = self._newest[name]
        if status is None:
            return DiagnosticStatus.STALE, "never heard"
        if now - heard > self._stale_after:
            return DiagnosticStatus.STALE, f"silent for {now - heard:.0f} s; last: {status.message}"
        return status.level, status.message
