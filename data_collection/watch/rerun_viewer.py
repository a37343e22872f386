"""Rerun's own viewer as a process of this machine, which nobody reaches from another one."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from safe_policy_core.errors import ConfigurationError

HOST = "127.0.0.1"
START_TIMEOUT = 30.0
"""[s]"""
MEMORY = "1GiB"
"""What the viewer's server keeps of a long session; the oldest goes first."""


def rerun_program() -> str:
    """Not the script of that name, which starts the program as a child that outlives it.

    Raises `ConfigurationError` when it is not installed.
    """
    found = importlib.util.find_spec("rerun_cli")
    if found is None or found.origin is None:
        raise ConfigurationError("viewer: the program of rerun-sdk is not installed here; run `make setup`")
    return str(Path(found.origin).with_name("rerun"))


class RerunViewer:
    """A window where there is a screen, else a page for a browser. Ends with `close`.

    port: of the page (0: any free one). address: where a `RerunView` connects to. url: the page, "" for a window.
    The SDK's own `serve_grpc` listens on all interfaces, so the viewer's program is started instead.
    Raises `ConfigurationError` when it is not installed, or does not come up.
    """

    def __init__(self, port: int = 9090, window: bool | None = None) -> None:
        program = rerun_program()
        if window is None:
            window = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        data_port = free_port()
        self.address = f"rerun+http://{HOST}:{data_port}/proxy"
        command = [program, "--bind", HOST, "--port", str(data_port), "--server-memory-limit", MEMORY]
        self.url, waited = "", [data_port]
        if not window:
            port = port or free_port()
            # Its server answers only pages of localhost, by this name.
            self.url = f"http://localhost:{port}?url={quote(self.address, safe='')}"
            command += ["--serve-web", "--web-viewer-port", str(port)]
            waited.append(port)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(command, stdout=self._said, stderr=self._said)
        try:
            for number in waited:
                self._wait_for(number)
        except ConfigurationError:
            self.close()
            raise

    @property
    def running(self) -> bool:
        """False once the person has closed the window."""
        return self._process.poll() is None

    def close(self) -> None:
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.running:
                self._said.seek(0)
                raise ConfigurationError(f"viewer: rerun ended at its start ({self._said.read().strip()[-300:]}); "
                                         "another --port may help, or --save FOLDER for files to open elsewhere")
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
            time.sleep(0.05)
        raise ConfigurationError(f"viewer: rerun does not listen on port {port} after {START_TIMEOUT:g} s")


def free_port() -> int:
    """One of this machine's that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
