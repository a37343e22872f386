"""What a node says about its health on /diagnostics, once a second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from safe_policy_ros.messages import ns_to_stamp

TOPIC = "/diagnostics"
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def health_message(name: str, level: bytes, message: str, values: Mapping[str, Any], now_ns: int,
                   hardware_id: str = "") -> DiagnosticArray:
    """One status of one node; numbers keep four significant digits."""
    pairs = [KeyValue(key=key, value=f"{value:.4g}" if isinstance(value, float) else str(value))
             for key, value in values.items()]
    array = DiagnosticArray(status=[DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id,
                                                     values=pairs)])
    array.header.stamp = ns_to_stamp(now_ns)
    return array
