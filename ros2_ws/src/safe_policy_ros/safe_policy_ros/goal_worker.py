"""Runs an action's goals one at a time in a worker thread.

rclpy's executor polls a coroutine that waits, which takes a whole core, and a callback that blocks
keeps it from hearing the cancel request. So the work happens here and the executor only hears the result.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node

Work = Callable[[ServerGoalHandle], tuple[str, Any]]
"""Goal handle -> ("succeed", "abort" or "canceled", the result message)."""


class GoalWorker:
    """An action server whose goals run in one worker thread; a goal that comes meanwhile is refused.

    work: must not raise for anything that a user can cause; what it raises is logged, the goal aborts
        with `failure(error)` as its result and the node lives on.
    on_cancel: called in the executor's thread at a cancel request.
    """

    def __init__(self, node: Node, action: Any, name: str, work: Work, failure: Callable[[Exception], Any],
                 on_cancel: Callable[[], None] = lambda: None) -> None:
        self._node, self._work, self._failure, self._on_cancel = node, work, failure, on_cancel
        self._goals: queue.Queue[ServerGoalHandle | None] = queue.Queue()
        self._busy = threading.Event()
        self._server = ActionServer(
            node, action, name, lambda handle: failure(RuntimeError("goal was not handed to the worker")),
            goal_callback=self._on_goal, handle_accepted_callback=self._on_accepted, cancel_callback=self._on_cancelled)
        self._thread = threading.Thread(target=self._run, name=f"worker of {name}", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._busy.is_set()

    def _on_goal(self, _: Any) -> GoalResponse:
        return GoalResponse.REJECT if self.busy else GoalResponse.ACCEPT

    def _on_accepted(self, handle: ServerGoalHandle) -> None:
        self._busy.set()
        self._goals.put(handle)

    def _on_cancelled(self, _: Any) -> CancelResponse:
        self._on_cancel()
        return CancelResponse.ACCEPT

    def _run(self) -> None:
        while (handle := self._goals.get()) is not None:
            try:
                outcome, result = self._work(handle)
            except Exception as error:  # the node outlives every episode
                self._node.get_logger().error(f"{error}\n{traceback.format_exc()}")
                outcome, result = "abort", self._failure(error)
            self._busy.clear()
            self._finish(handle, outcome, result)

    def _finish(self, handle: ServerGoalHandle, outcome: str, result: Any) -> None:
        def report(_: ServerGoalHandle) -> Any:
            getattr(handle, "canceled" if handle.is_cancel_requested else outcome)()
            return result

        handle.execute(report)

    def close(self, timeout: float = 5.0) -> None:
        """Ends the thread after the goal in hand."""
        self._goals.put(None)
        self._thread.join(timeout)
        self._server.destroy()
