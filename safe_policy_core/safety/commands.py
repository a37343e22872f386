"""Commands to the safety gate: what may pass, and whose turn it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_policy_core.safety.gate_config import WatchTimes

TELEOP, POLICY = "teleop", "policy"
SOURCES = (TELEOP, POLICY)
"""In order of rank."""

LARGEST_TWIST = 1e3
"""[m/s, rad/s] Beyond this a number is no speed but garbage; clipping it would obey garbage."""
ROUNDING = 1e-6
"""[s] Periods are added up: less than this is no time."""
HARMLESS = frozenset({"not_armed", "in_flight", "out_of_order", "cost_budget"})
"""Refusals that say nothing against the sender: they are counted, and neither latch a fault nor bar arming."""


@dataclass(frozen=True)
class Command:
    """A twist (6,) [m/s, rad/s] in `frame`, stamped by its sender's ROS clock [s]."""

    twist: Any
    frame: str
    stamp: float


def refusal(command: Command, times: WatchTimes, frame: str, clock: float, armed_at: float | None,
            last_stamp: float | None) -> str:
    """Why `command` may not pass, or "". Checked before any limit is applied: a NaN survives every clip.

    clock: the ROS clock now [s]. armed_at: ROS clock of the last arming, None before the first.
    last_stamp: stamp of the last command of this source that passed, in whatever epoch: after a step of the
    clock an old command may look new, but it is never newer than itself.
    """
    try:
        twist = np.asarray(command.twist, float)
    except (TypeError, ValueError):
        return "wrong_shape"
    if twist.shape != (6,):
        return "wrong_shape"
    if not np.isfinite(twist).all():
        return "non_finite"
    if np.abs(twist).max() > LARGEST_TWIST:
        return "out_of_range"
    if command.frame != frame:
        return "wrong_frame"
    if not np.isfinite(command.stamp) or command.stamp <= 0:
        return "zero_stamp"
    if command.stamp > clock + times.max_stamp_ahead:
        return "future_stamp"
    if armed_at is not None and command.stamp < armed_at:
        # On its way while the operator armed: too old to act on, but no sign of a replay.
        return "in_flight" if clock - armed_at < times.command_timeout else "old_stamp"
    if command.stamp < clock - times.max_stamp_age:
        return "old_stamp"
    if last_stamp is not None and command.stamp <= last_stamp:
        return "out_of_order"
    return ""


@dataclass
class _Slot:
    twist: np.ndarray
    received: float
    left: float
    """[s] for which it may still move the target."""

    @property
    def moving(self) -> bool:
        return bool(self.twist.any())


class Arbiter:
    """The newest command of each source, and the source that is obeyed.

    The operator outranks the policy from the first command that asks for motion until
    `teleop_hold` after the last. Times are steady seconds of receipt.
    """

    def __init__(self, times: WatchTimes) -> None:
        self._times = times
        self._slots: dict[str, _Slot] = {}
        self._teleop_until = -np.inf

    def clear(self) -> None:
        """No command survives a change of the gate's state."""
        self._slots.clear()
        self._teleop_until = -np.inf

    def drop(self, source: str) -> None:
        """The last command of `source` is not obeyed any longer."""
        self._slots.pop(source, None)

    def put(self, source: str, twist: np.ndarray, now: float) -> bool:
        """Stores a command; returns False when a source of higher rank keeps it from being obeyed."""
        self._slots[source] = slot = _Slot(np.asarray(twist, float).copy(), now, self._times.command_span)
        if source == TELEOP and slot.moving:
            self._teleop_until = now + self._times.teleop_hold
        return source == TELEOP or now >= self._teleop_until

    def spend(self, source: str, dt: float) -> float:
        """Share of `dt` [s] for which the command of `source` still moves the target, which counts as used."""
        slot = self._slots.get(source)
        if slot is None or dt <= 0:
            return 0.0
        used = min(dt, slot.left)
        slot.left -= used
        return 1.0 if dt - used < ROUNDING else used / dt

    def select(self, now: float) -> tuple[str, np.ndarray, bool]:
        """(source or "", twist (6,), stale): stale when the obeyed source asked for motion and fell silent."""
        fresh = {source: now - slot.received < self._times.command_timeout for source, slot in self._slots.items()}
        teleop = self._slots.get(TELEOP)
        if teleop is not None and teleop.moving and not fresh[TELEOP]:
            return TELEOP, np.zeros(6), True
        if now < self._teleop_until:
            # Meanwhile the policy may fall silent without moving anything: its command is not kept for later.
            if not fresh.get(POLICY, True):
                del self._slots[POLICY]
            return (TELEOP, teleop.twist, False) if teleop is not None and fresh[TELEOP] else ("", np.zeros(6), False)
        policy = self._slots.get(POLICY)
        if policy is not None and (fresh[POLICY] or policy.moving):
            return POLICY, policy.twist if fresh[POLICY] else np.zeros(6), not fresh[POLICY]
        return (TELEOP, teleop.twist, False) if teleop is not None and fresh[TELEOP] else ("", np.zeros(6), False)
