"""Shows the running graph in a viewer. Started by `safe-policy watch`; it only listens, and nobody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import rclpy.clock
from rclpy.node import Node

from data_collection.watch.view import TOPICS as WATCHED
from data_collection.watch.view import View
from safe_policy_core.errors import DatasetError
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.node_process import run_node
from safe_policy_ros.recorder_node import TOPICS, message_type

NAME = "watch"
POLL_PERIOD = 0.05
"""[s] Of a topic with a queue of one, such as pictures and poses, what came last in this time is shown."""


class WatchNode(Node):
    """Takes what the recorder takes, but of pictures and poses only the newest: a viewer must not slow the graph."""

    def __init__(self, view: View) -> None:
        super().__init__(NAME)
        self._view = view
        group = TakenByHand()
        self._taps = [(topic, kind, subscribe(self, message_type(kind), topic, profile, group, raw=True))
                      for topic, (kind, profile) in TOPICS.items() if topic in WATCHED]
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        self.create_timer(POLL_PERIOD, self._poll, clock=steady)
        self.get_logger().info("ready, waits for the graph's messages")

    def _poll(self) -> None:
        found = [(info["received_timestamp"], topic, kind, data) for topic, kind, subscription in self._taps
                 for data, info in take(subscription, raw=True)]
        for received, topic, kind, data in sorted(found, key=lambda entry: entry[0]):
            try:
                self._view.show(topic, kind, data, received)
            except (DatasetError, ValueError) as error:
                self.get_logger().warning(f"{topic}: {error}", throttle_duration_sec=5.0)

    def close(self) -> None:
        """Nothing is held."""


def watch_graph(view: View, wanted: Callable[[], bool]) -> int:
    """Shows what is published until a signal comes or `wanted` says no. Returns the process's exit code."""
    def wait(_: Node) -> bool:
        time.sleep(POLL_PERIOD)
        return wanted()

    return run_node(lambda: WatchNode(view), NAME, wait)
