"""Client of the scene inside the FCI server: snapshots, and new layouts while the arm is connected."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from sim.safe_reach import task
from sim.safe_reach.layouts import sample_layout
from sim.safe_reach.snapshot import Snapshot, SnapshotReader

DEFAULT_ADDRESS = "127.0.0.1:5577"


def parse_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 5577) of "127.0.0.1:5577". Raises `ConfigurationError`."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"scene address: expected HOST:PORT, got {address!r}")
    return host, int(port)


class SceneLink:
    """One connection to a running `python -m sim.safe_reach.server`. Methods may be called from any thread.

    Raises `RobotUnavailableError` when no server answers at `address` within `timeout` [s].
    """

    def __init__(self, address: str = DEFAULT_ADDRESS, timeout: float = 5.0) -> None:
        self._address, self._lock = address, threading.Lock()
        try:
            self._socket = socket.create_connection(parse_address(address), timeout)
        except OSError as error:
            raise RobotUnavailableError(f"simulated scene at {address} does not answer ({error}); "
                                        "start it with python -m sim.safe_reach.server") from error
        self._replies = self._socket.makefile("r")
        hello = self._ask({"command": "hello"})
        self.fci_hostname: str = hello["fci_hostname"]
        """Where libfranka clients find the arm."""
        self._reader = SnapshotReader(Path(hello["snapshot"]))

    def snapshot(self) -> Snapshot:
        """The newest state of the scene, at most 10 ms old while the server runs."""
        return self._reader.read()

    def reset(self, task_name: str, seed: int, clear: bool = False) -> dict[str, Any]:
        """Places the layout of (task, seed), or with `clear` removes every object. Returns that layout as JSON, in both
        cases: who clears the table knows what will stand there.

        The layout is drawn here, so that the server's 1 kHz loop only has to write positions. Cost and
        touch counts start again. The arm is not moved. Raises `ConfigurationError` for an unknown task.
        """
        task.check_task(task_name)
        layout = sample_layout(task_name, seed)
        self.place(task.Layout() if clear else layout)
        return layout.to_json()

    def place(self, layout: task.Layout) -> dict[str, Any]:
        """As `reset`, with a layout of the caller's choice."""
        self._ask({"command": "place", "layout": layout.to_json()})
        return layout.to_json()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._lock:
                self._socket.sendall(json.dumps(request).encode() + b"\n")
                line = self._replies.readline()
        except OSError as error:
            raise RobotUnavailableError(f"simulated scene at {self._address}: {request['command']} failed ({error})"
                                        ) from error
        if not line:
            raise RobotUnavailableError(f"simulated scene at {self._address} closed the connection")
        reply = json.loads(line)
        if "error" in reply:
            raise ConfigurationError(f"simulated scene at {self._address}: {reply['error']}")
        return reply

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def __enter__(self) -> SceneLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
