"""Subscriptions that are read when their reader is ready, not whenever a message arrives.

An rclpy executor builds a wait set for every wake-up, most of a millisecond each. Reading what has
come in one go, at the reader's own rate, takes a third of the time, which the arm's processes need more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription


class TakenByHand(CallbackGroup):
    """Keeps subscriptions away from the executor."""

    def can_execute(self, entity: object) -> bool:
        return False

    def beginning_execution(self, entity: object) -> bool:
        return False

    def ending_execution(self, entity: object) -> None:
        return None


def subscribe(node: Node, kind: type, topic: str, profile: QoSProfile, group: TakenByHand, depth: int = 0,
              raw: bool = False) -> Subscription:
    """A subscription to `take` from. depth: how many messages may wait; 0 takes the profile's."""
    deep = QoSProfile(history=profile.history, depth=max(profile.depth, depth), reliability=profile.reliability,
                      durability=profile.durability)
    return node.create_subscription(kind, topic, lambda _: None, deep, raw=raw, callback_group=group)


def take(subscription: Subscription, raw: bool = False) -> Iterator[tuple[Any, Any]]:
    """(message, the middleware's info about it) of everything that waits."""
    handle = subscription.handle
    with handle:
        while (taken := handle.take_message(subscription.msg_type, raw)) is not None:
            yield taken


class Waiting:
    """Sleeps until one of a few subscriptions has something to take. The wait set is built once."""

    def __init__(self, node: Node, subscriptions: Sequence[Subscription]) -> None:
        context: Any = node.context.handle
        self._context = context
        self._handles: list[Any] = [subscription.handle for subscription in subscriptions]
        with context:
            self._set = _rclpy.WaitSet(len(self._handles), 0, 0, 0, 0, 0, context)

    def wait(self, seconds: float) -> bool:
        """At most `seconds`; whether something waits to be taken."""
        with contextlib.ExitStack() as held:
            for handle in (self._context, *self._handles):
                held.enter_context(handle)
            self._set.clear_entities()
            for handle in self._handles:
                self._set.add_subscription(handle)
            self._set.wait(max(0, int(seconds * 1e9)))
            return any(self._set.is_ready("subscription", index) for index in range(len(self._handles)))


@dataclass
class ReceiveClock:
    """Times of receipt on the steady clock, from the middleware's stamps on the system clock.

    What is taken now came after the previous look, so the conversion is bounded by the two looks: a
    step of the system clock can make nothing look older or fresher than that.
    """

    previous: float = float("-inf")

    def received(self, received_ns: int, now: float, system_ns: int) -> float:
        """received_ns: the middleware's stamp; now [steady s] and system_ns of this look."""
        return min(now, max(self.previous, now - (system_ns - received_ns) * 1e-9))

    def looked(self, now: float) -> None:
        self.previous = now


def look() -> tuple[float, int]:
    """(steady clock [s], system clock [ns]) of this moment."""
    return time.monotonic(), time.time_ns()
