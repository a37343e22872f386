"""The life of a node's process: start, signals, one-line errors, exit code."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Protocol

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from safe_policy_core.errors import UserError
from safe_policy_core.scheduling import REALTIME_PRIORITY, come_first, step_back

PACKAGES = ("data_collection", "safe_policy_core", "safe_policy_ros", "sim")
"""Whose log lines are the user's business; of other libraries only warnings are."""


class ProcessNode(Protocol):
    """A node with something to do before its process ends."""

    def close(self) -> None:
        """Frees devices and files. ROS still works while it runs."""
        ...


def run_node(make_node: Callable[[], Node], name: str, work: Callable[[Node], bool] | None = None,
             priority: int = 0) -> int:
    """Runs a node until SIGINT, SIGTERM or an error. Returns the process's exit code.

    rclpy's own signal handlers shut ROS down first; then a node could neither publish a last zero
    command nor report a finished recording. A `UserError` from anywhere in the node ends the process
    with one line. work: called again and again in this thread, for a node whose job blocks; it
    returns False when the job is done, and callbacks then run in a thread of their own.
    priority: one of `safe_policy_core.scheduling` for the running node, 0 for an ordinary process.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=f"[%(levelname)s] [{name}] %(message)s")
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    stopping = threading.Event()
    starting = True

    def on_signal(*_: object) -> None:
        stopping.set()
        if starting:
            # A node may wait long for its device; nothing is running yet that would have to be ended in order.
            raise SystemExit(0)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    spinner: threading.Thread | None = None
    node: Node | None = None
    try:
        node = make_node()
        starting = False
        executor.add_node(node)
        # What was made at the start lives on: collections need not walk it, which takes tens of milliseconds.
        gc.collect()
        gc.freeze()
        if priority:
            come_first(priority)
        if work is None:
            while not stopping.is_set():
                executor.spin_once(timeout_sec=0.1)
            return 0
        failures: list[Exception] = []
        spinner = threading.Thread(target=_spin, args=(executor, stopping, failures), name="spin", daemon=True)
        spinner.start()
        while not stopping.is_set() and work(node):
            pass
        if failures:
            raise failures[0]
        return 0
    except UserError as error:
        get_logger(name).fatal(str(error))
        return error.exit_code
    finally:
        starting = False
        stopping.set()
        if priority and priority < REALTIME_PRIORITY:
            step_back()
        if spinner is not None:
            spinner.join(timeout=2.0)
        if node is not None:
            node.close()  # type: ignore[attr-defined]
            executor.remove_node(node)
            node.destroy_node()
        executor.shutdown(timeout_sec=1.0)
        rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor, stopping: threading.Event, failures: list[Exception]) -> None:
    """A callback that fails ends the process, as it does without a second thread."""
    try:
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.1)
    except Exception as error:
        failures.append(error)
        stopping.set()
