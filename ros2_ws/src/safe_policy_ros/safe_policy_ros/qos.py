"""Quality of service of every topic, in one place: a publisher and a subscriber that differ never connect."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, reliable: bool, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)


SENSOR = _profile(1, reliable=False)
"""Images and arm state: only the newest counts."""
COMMAND = _profile(1, reliable=True)
"""Twists and target poses."""
STATUS = _profile(10, reliable=True)
"""Gate status, joysticks, diagnostics."""
LABELS = _profile(50, reliable=True)
STEPS = _profile(100, reliable=True)
EPISODE_STATE = _profile(1, reliable=True, latched=True)
EPISODE_SAVED = _profile(10, reliable=True, latched=True)
"""Latched topics reach a node that starts late."""
