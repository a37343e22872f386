"""The server's side of `link.SceneLink`: requests are answered between two steps of the simulation."""

from __future__ import annotations

import json
import selectors
import socket
from collections.abc import Callable
from typing import Any

from safe_policy_core.errors import RobotUnavailableError

Handler = Callable[[dict[str, Any]], dict[str, Any]]
_MAX_REQUEST = 65536


class LinkServer:
    """Answers lines of JSON over local TCP. `poll` never waits. Port 0 takes a free one."""

    def __init__(self, port: int, handle: Handler) -> None:
        self._handle = handle
        self._selector = selectors.DefaultSelector()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError as error:
            raise RobotUnavailableError(f"link port {port}: {error.strerror}; another server uses it? "
                                        "choose one with --link") from error
        self._socket.listen()
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ, None)
        self.port: int = self._socket.getsockname()[1]

    def poll(self) -> None:
        """Takes in what has arrived."""
        for key, _ in self._selector.select(0):
            if key.data is None:
                client, _ = self._socket.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(client, selectors.EVENT_READ, bytearray())
            else:
                self._serve(key.fileobj, key.data)

    def _serve(self, client: Any, buffer: bytearray) -> None:
        try:
            received = client.recv(_MAX_REQUEST)
            buffer += received
            while received and b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer[:] = rest
                client.sendall(json.dumps(self._answer(line)).encode() + b"\n")
        except OSError:
            received = b""
        if not received or len(buffer) > _MAX_REQUEST:
            self._selector.unregister(client)
            client.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return self._handle(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()
