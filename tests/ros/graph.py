"""Real processes of the ROS graph for tests, each test in a ROS domain of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robot_bringup.environment import INSTALL, ROOT, ros_environment
from robot_bringup.segments import remove_dead_segments
from safe_policy_core.scheduling import come_first, ordinary, step_back

DOMAINS = range(60, 100)
"""Above the usual ones; the ports of domains over 101 may be taken by outgoing connections."""
CONFIG = ROOT / "robot_bringup" / "config"
ARM = (CONFIG / "franka.yaml", CONFIG / "payload_none.yaml")
"""Parameter files of franka_node for a simulated arm."""


@contextlib.contextmanager
def ros_domain() -> Iterator[int]:
    """A domain that no other test on this machine holds at the same time."""
    remove_dead_segments()
    for domain in DOMAINS:
        lock = (Path(tempfile.gettempdir()) / f"safe_policy_domain_{domain}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        with lock:
            yield domain
        return
    raise RuntimeError(f"every ROS domain of {DOMAINS} is in use")


class Prompt:
    """Runs the test's own process ahead of others until `end`: it plays senders and receivers that are prompt,
    and what it finds must not depend on what else the machine does."""

    def __init__(self) -> None:
        come_first()

    def end(self) -> None:
        step_back()


class Process:
    """A child in a process group of its own, with its output in a file."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name, self.log = name, log
        # A child of a prompt test must not load its libraries ahead of a gate that is running.
        with log.open("wb") as output, ordinary():
            # A test that is killed must not leave a real-time graph behind that takes the machine.
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], cwd=ROOT, env=environment,
                                             stdout=output, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def poll(self) -> int | None:
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        """The exit code. Raises `subprocess.TimeoutExpired`."""
        return self._process.wait(timeout)

    def signal(self, number: int) -> None:
        """To the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self, timeout: float = 8.0) -> int:
        """SIGINT, then SIGKILL. Returns the exit code."""
        if self.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(timeout)
        self.signal(signal.SIGKILL)
        return self.wait(5.0)


class Graph:
    """Processes in one ROS domain; leaving the context stops them all."""

    def __init__(self, directory: Path, domain: int) -> None:
        self.directory, self.domain = directory, domain
        self.environment = ros_environment(os.environ) | {"ROS_DOMAIN_ID": str(domain), "OMP_NUM_THREADS": "1"}
        self.processes: list[Process] = []

    def start(self, name: str, command: list[str]) -> Process:
        log = self.directory / f"{name}_{len(self.processes)}.log"
        process = Process(name, command, self.environment, log)
        self.processes.append(process)
        return process

    def node(self, executable: str, *arguments: str, parameters: Path | tuple[Path, ...] = (),
             **overrides: Any) -> Process:
        """A node of safe_policy_ros with parameter files and single parameters."""
        command = [str(INSTALL / "lib" / "safe_policy_ros" / executable), *arguments, "--ros-args"]
        for path in (parameters,) if isinstance(parameters, Path) else parameters:
            command += ["--params-file", str(path)]
        for name, value in overrides.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name}:={text}"]
        return self.start(executable, command)

    def python(self, name: str, *arguments: str) -> Process:
        return self.start(name, [sys.executable, *arguments])

    def close(self) -> None:
        for process in self.processes:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGINT)
        for process in self.processes:
            process.stop()


@contextlib.contextmanager
def ros_graph(directory: Path) -> Iterator[Graph]:
    """A `Graph` in a fresh domain, with its logs in `directory`."""
    with ros_domain() as domain:
        graph = Graph(directory, domain)
        try:
            yield graph
        finally:
            graph.close()


def wait_for(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """The condition's first true value. Fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(0.02)  # in real-time priority: a shorter one takes half a core from the graph
    return value
