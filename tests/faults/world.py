"""The running graph that faults are injected into, and what the suite asks of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from safe_policy_interfaces.msg import EpisodeSaved, GateStatus
from safe_policy_ros import qos
from safe_policy_ros.client import GraphClient
from safe_policy_ros.graph_link import COMPANIONS
from safe_policy_ros.hand_taken import ReceiveClock, TakenByHand, look, subscribe, take
from safe_policy_ros.heartbeat import heartbeat_topic
from safe_policy_ros.spinner import Spinner
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from robot_bringup.environment import ROOT
from safe_policy_core.data.episodes import read_episode
from safe_policy_core.errors import UserError
from safe_policy_core.scheduling import CONTROL_PRIORITY, come_first, step_back
from tests.faults.clock import SteppedClock
from tests.faults.rest import ArmWatch
from tests.faults.senders import Sender
from tests.ros.graph import ARM, wait_for
from tests.ros.safe_reach_graph import READY_TIMEOUT, SafeReachGraph

MOVING = 0.05
"""[m/s] A fault is injected when the arm is faster than this."""
KEPT = 3
"""Finished episodes that stay on the suite's small disk."""
BUSY = 40.0
"""[s] An episode whose recorder was lost waits 30 s for its receipt, and the policy runs no other meanwhile."""
STARTING_PRIORITY = 1
WAITING = 500
"""Messages that may wait until the suite looks."""
READY = {"franka": "ready", "safety_gate": "ready", "camera": "ready", "teleop": "ready", "recorder": "ready",
         "policy": "policy fosp", "fine_tuner": "ready", "scene": "ready"}
"""What a node's log says once it works."""


class FaultWorld:
    """The graph, and a person who watches it. recordings: where episodes go, may be a file system of its own.

    checkpoint: of the policy that moves the arm. patience: of its node.
    """

    def __init__(self, running: SafeReachGraph, clock: SteppedClock, recordings: Path, checkpoint: Path,
                 patience: float) -> None:
        self.running, self.graph, self.clock, self._patience = running, running.graph, clock, patience
        self.recordings, self.checkpoint = recordings, checkpoint
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self.graph.domain)
        self.node = node = rclpy.create_node("fault_watch", context=self._context)
        self._status: tuple[float, GateStatus] | None = None
        self.statuses: deque[tuple[float, GateStatus]] = deque(maxlen=500)
        self.said: deque[tuple[float, str]] = deque(maxlen=400)
        self._finished: dict[Path, str] = {}
        self._heard = dict.fromkeys(COMPANIONS, 0.0)
        group = TakenByHand()
        heard: tuple[tuple[type, str, Any, Callable[[Any, float], None]], ...] = (
            (GateStatus, "/safety_gate/status", qos.STATUS, self._on_status),
            (DiagnosticArray, "/diagnostics", qos.STATUS, self._on_diagnostics),
            (EpisodeSaved, "/episode/saved", qos.EPISODE_SAVED, self._on_saved),
            *((Header, heartbeat_topic(name), qos.COMMAND, partial(self._on_beat, name)) for name in COMPANIONS))
        self._taps = [(subscribe(node, kind, topic, profile, group, WAITING), handle)
                      for kind, topic, profile, handle in heard]
        self._clock = ReceiveClock()
        self._polling = threading.Lock()
        self._services = {name: node.create_client(Trigger, f"/safety_gate/{name}") for name in ("arm", "stop")}
        self._recover = node.create_client(Trigger, "/franka/recover")
        self._spinner = Spinner(node)
        self.watch = ArmWatch(running.scene)
        self.sender: Sender | None = None
        self._clients: list[GraphClient] = []
        self._policy: Any = None
        self.episode: threading.Thread | None = None
        self.result: dict[str, Any] = {}
        come_first(CONTROL_PRIORITY)  # what the suite measures must not depend on the load that it makes

    # Hearing

    def poll(self) -> None:
        """Takes what has come: at the suite's leisure, since every processor cycle of it is one less for the graph."""
        with self._polling:
            now, system_ns = look()
            for subscription, handle in self._taps:
                for message, info in take(subscription):
                    handle(message, self._clock.received(info["received_timestamp"], now, system_ns))
            self._clock.looked(now)

    def _on_status(self, message: GateStatus, received: float) -> None:
        self._status = received, message
        self.statuses.append(self._status)

    def _on_diagnostics(self, message: DiagnosticArray, received: float) -> None:
        for status in message.status:
            values = " ".join(f"{pair.key}={pair.value}" for pair in status.values)
            self.said.append((received, f"{status.name}: {status.message} {values}"))

    def _on_beat(self, name: str, message: Header, received: float) -> None:
        self._heard[name] = received

    def complete(self) -> bool:
        """Whether every process is heard that an episode cannot do without."""
        self.poll()
        return min(self._heard.values()) > time.monotonic() - 0.2

    def _on_saved(self, message: EpisodeSaved, received: float) -> None:
        if message.success and message.hdf5_path:
            path = Path(message.hdf5_path)
            self._finished[path] = _digest(path)

    def gate(self) -> GateStatus | None:
        """The gate's newest status, None when it has been silent for half a second."""
        self.poll()
        status = self._status
        return status[1] if status and time.monotonic() - status[0] < 0.5 else None

    def diagnosed(self, pattern: Any, since: float) -> str:
        """The first line of /diagnostics since then that matches, or ""."""
        self.poll()
        return next((line for when, line in list(self.said) if when >= since and pattern.search(line)), "")

    def lost_episodes(self) -> int:
        """How many finished episodes are gone or changed."""
        return sum(_digest(path) != digest for path, digest in self._finished.items())

    def make_room(self) -> None:
        """Takes away the files of all episodes but the newest finished ones: the disk is a small one, and each run
        leaves a megabyte. Between runs, after `lost_episodes` was asked."""
        self.poll()  # a receipt that waits makes its episode one of the newest
        for path in self.finished[:-KEPT]:
            del self._finished[path]
        kept = {path.stem for path in self._finished}
        for file in self.recordings.iterdir():
            if file.suffix in {".h5", ".mcap"} and file.stem not in kept:
                file.unlink(missing_ok=True)

    @property
    def finished(self) -> list[Path]:
        return list(self._finished)

    # Acting

    def call(self, name: str) -> tuple[bool, str]:
        """(success, message) of a service of the gate; (False, why) when it does not answer."""
        client = self._services[name]
        if not client.service_is_ready():
            return False, "no such service"
        try:
            answer = self._spinner.wait(client.call_async(Trigger.Request()), 2.0, name)
        except UserError as error:
            return False, str(error)
        return answer.success, answer.message

    def arm(self) -> None:
        """As a person does: again until the gate stays armed."""
        def armed() -> bool:
            gate = self.gate()
            if gate is None or gate.state in (GateStatus.DISARMED, GateStatus.FAULT):
                ok, why = self.call("arm")
                self.refusal = why
                time.sleep(0.1)
                return False if not ok else (time.sleep(0.2), self.is_armed)[1]
            return True

        try:
            wait_for(armed, 30.0, "arming")
        except AssertionError as error:
            raise RuntimeError(f"{error}: {self.refusal}\n{self.running.logs()}") from error

    refusal = ""

    @property
    def is_armed(self) -> bool:
        gate = self.gate()
        return gate is not None and gate.state in (GateStatus.HOLD, GateStatus.ACTIVE)

    # Processes

    def start(self, name: str, wait: bool = True) -> None:
        """Starts a node of the graph in place of what ran under its name."""
        node, old = self.graph.node, self.running.nodes.get(name)
        if old is not None:
            old.signal(signal.SIGKILL)
            old.wait(5.0)
        self.running.nodes[name] = {
            "franka": lambda: node("franka_node", parameters=ARM, robot_ip=self.running.robot, realtime="ignore"),
            "safety_gate": lambda: node("safety_gate_node", parameters=self.running.gate, autostart=True),
            "camera": lambda: node("camera_node", camera="simulated", address=self.running.scene),
            "teleop": lambda: node("teleop_node", device="scripted"),
            "recorder": lambda: node("recorder_node", directory=self.recordings),
            "policy": lambda: node("policy_node", checkpoint=self.checkpoint, patience=self._patience,
                                   require_replay=False),
            "fine_tuner": lambda: node("fine_tuner_node"),
            "scene": lambda: node("scene_node", address=self.running.scene)}[name]()
        hurry(self.running.nodes[name].pid)
        if wait:
            self.await_ready(name)

    def await_ready(self, name: str) -> None:
        process = self.running.nodes[name]
        deadline = time.monotonic() + READY_TIMEOUT
        while READY[name] not in process.output and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        calm(process.pid)
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended with exit code {process.poll()}: {process.output[-800:]}")

    def heal(self) -> list[str]:
        """Every process that should run runs again. Returns which had to be started anew."""
        for process in self.running.nodes.values():
            process.signal(signal.SIGCONT)
        dead = [name for name, process in self.running.nodes.items() if process.poll() is not None]
        for name in dead:
            self.start(name, wait=False)
        for name in dead:
            self.await_ready(name)
        if dead:
            time.sleep(1.0)  # until the others know of it
        return dead

    def recover(self, heal: Callable[[FaultWorld], Any]) -> None:
        """After a run that broke off: the fault is undone, and the episode over."""
        with contextlib.suppress(AttributeError, OSError, subprocess.SubprocessError):  # it had not begun
            heal(self)
        with contextlib.suppress(RuntimeError, AssertionError):
            self.heal()
        self.end_episode()
        self.make_room()
        time.sleep(1.0)

    # Motion

    def drive_sender(self) -> None:
        """The suite's own sender moves the arm, in place of a policy."""
        assert self.sender is not None
        self.sender.begin()
        wait_for(lambda: self.watch.speed() > MOVING, 10.0, "the arm moves")

    def drive_policy(self, seed: int, attempts: int = 4) -> None:
        """The policy moves the arm in an episode that is recorded. The start's pose and layout are those of `seed`."""
        wait_for(self.complete, 20.0, "heartbeats of teleop, recorder and fine-tuner")
        until = time.monotonic() + BUSY
        while attempts:
            self.arm()
            self.result, started = {}, threading.Event()
            self.episode = threading.Thread(target=self._run_episode, args=(seed, started), daemon=True)
            self.episode.start()
            while self.episode.is_alive():
                if started.wait(0.02) and self.watch.speed() > MOVING:
                    return
            if "another one is running" in self.result.get("message", "") and time.monotonic() < until:
                time.sleep(1.0)
            else:
                seed, attempts = seed + 1, attempts - 1
        raise RuntimeError(f"no episode moved the arm: {self.result}")

    def _run_episode(self, seed: int, started: threading.Event) -> None:
        def hear(step: dict[str, Any]) -> None:
            if step["step"] >= 3:
                started.set()

        try:
            self.result = self.client().run_episode("original", seed, "policy", self.recordings, on_step=hear,
                                                    deterministic=True, timeout=25.0)
        except UserError as error:
            self.result = {"message": str(error)}

    def end_episode(self) -> None:
        """Waits for the episode's own end; a client whose policy was killed may be left waiting."""
        if self.sender is not None:
            self.sender.halt()
            self.sender.talking = False
        if self.episode is not None:
            self.episode.join(6.0)
            self.episode = None

    def add_episodes(self) -> None:
        """The second half of the graph: what runs, records and learns from episodes."""
        if self.sender is not None:
            self.sender.close()
            self.sender = None
        # By a process of its own: this one need not load torch.
        subprocess.run([sys.executable, "-m", "tests.faults.policy", str(self.checkpoint)], cwd=ROOT, check=True)
        for name in ("teleop", "recorder", "policy", "fine_tuner"):
            self.start(name, wait=False)
        for name in ("teleop", "recorder", "policy", "fine_tuner"):
            self.await_ready(name)
        self.client()

    def client(self) -> GraphClient:
        """A client of the graph as it is now: one whose policy died goes on waiting for it."""
        if not self._clients or self._policy is not self.running.nodes["policy"]:
            self._policy = self.running.nodes["policy"]
            self._clients.append(GraphClient(f"fault_client_{len(self._clients)}", self.graph.domain))
            self._clients[-1].wait_ready(READY_TIMEOUT, learning=True)
        return self._clients[-1]

    def readable(self) -> bool:
        """Whether the newest finished episode can be read."""
        if not self._finished:
            return True
        try:
            read_episode(list(self._finished)[-1])
        except (UserError, OSError):
            return False
        return True

    def close(self) -> None:
        if self.sender is not None:
            self.sender.close()
        for client in self._clients:
            client.close()
        self.watch.close()
        self._spinner.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        step_back()


def hurry(pid: int) -> None:
    """A process that is started again waits behind the running graph, and not behind what else the machine does."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(STARTING_PRIORITY))


def calm(pid: int) -> None:
    """Undoes `hurry`, but not what the process chose for itself."""
    with contextlib.suppress(FileNotFoundError):
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            with contextlib.suppress(ProcessLookupError):
                if os.sched_getscheduler(thread) == os.SCHED_RR:
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "gone"
