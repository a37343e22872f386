"""A node's callbacks in a thread of their own, so that a caller may block while messages arrive."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from safe_policy_core.errors import RobotUnavailableError

T = TypeVar("T")
ASKED_AGAIN = 1.0
"""Seconds."""


class Spinner:
    """Spins `node` in one background thread until `close`. One executor per thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=f"spin {node.get_name()}", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            try:
                self._executor.spin()
                return
            except (ExternalShutdownException, ShutdownException):
                return
            except Exception:  # one bad message must not leave the caller with stale data for ever
                if self._closing.is_set() or not self._node.context.ok():
                    return
                self._node.get_logger().error(f"a callback failed; messages go on\n{traceback.format_exc()}")

    def wait(self, future: Future[T], timeout: float, what: str) -> T:
        """The future's result. Raises `RobotUnavailableError` naming `what` after `timeout` seconds."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout):
            raise RobotUnavailableError(f"{what}: no answer within {timeout:g} s; is its node running?")
        result = future.result()
        if result is None:
            raise RobotUnavailableError(f"{what}: the request was lost; is its node still running?")
        return result

    def ask(self, client: Client, request: Any, timeout: float, what: str) -> Any:
        """The answer of a service that may be asked more than once; asked again every `ASKED_AGAIN` seconds.

        A service can be there for its client before it has discovered where the client reads: its answer is lost then,
        and no other comes (ros2/rmw_fastrtps issue 842; seen here on a busy machine). Raises `RobotUnavailableError`.
        """
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > ASKED_AGAIN:
            asked = client.call_async(request)
            try:
                return self.wait(asked, ASKED_AGAIN, what)
            except RobotUnavailableError:
                client.remove_pending_request(asked)
        return self.wait(client.call_async(request), max(left, 0.0), what)

    def call(self, function: Callable[[], T], timeout: float, what: str) -> T:
        """The value of `function`, run in the spinning thread, where no message is handled meanwhile.

        For requests of action clients: rclpy 9.1 (Kilted) registers their future after the request was sent, and
        an answer that another thread handles in between is lost.
        """
        return self.wait(self._executor.create_task(function), timeout, what)

    def close(self) -> None:
        """Stops the thread. May be called twice, and from any thread but its own."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(timeout=2.0)
        self._executor.remove_node(self._node)


def wait_for_server(ready: Callable[[], bool], timeout: float, what: str) -> None:
    """Waits until `ready` (a client's service_is_ready or server_is_ready). Raises `RobotUnavailableError`."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise RobotUnavailableError(f"{what}: nobody offers it after {timeout:g} s; start its node")
        time.sleep(0.05)
