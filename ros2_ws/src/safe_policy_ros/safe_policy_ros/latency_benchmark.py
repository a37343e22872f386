"""Camera frame to command at the arm node for `make bench`: the whole graph on the FCI-simulated arm, with a small
FOSP policy at 10 Hz. Only the picture is not rendered: a process of its own sends noise, 640x480 at 30 Hz."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from safe_policy_interfaces.msg import FrameStatus, GateStatus, Step
from sensor_msgs.msg import Image

from robot_bringup.environment import INSTALL, ROOT, ros_environment
from safe_policy_core.errors import UserError
from safe_policy_core.methods.overrides import preset
from safe_policy_core.methods.registry import make_learner
from safe_policy_core.scheduling import (
    CAMERA_PRIORITY,
    CONTROL_PRIORITY,
    come_first,
    thread_comes_first,
    thread_steps_back,
)
from safe_policy_ros import qos
from safe_policy_ros.client import GraphClient
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.messages import image_to_msg, ns_to_stamp, stamp_to_ns
from sim.safe_reach.task import SPECS

DOMAIN = 57
RATE, WIDTH, HEIGHT = 30, 640, 480
STEPS, EPISODES = 240, 12
"""How many steps are wanted, of at most so many episodes: the gate keeps a real arm's times, and may end one."""
START_TIMEOUT = 120.0
LOOK_PERIOD, WAITING = 0.25, 500
"""[s] How often is listened, and how many messages may wait for it."""
CONFIG = ROOT / "robot_bringup" / "config"
MEDIAN_BAR, TAIL_BAR, GATE_BAR = 25.0, 45.0, 1.0
"""[ms]"""


def rows() -> list[dict[str, Any]]:
    """Median and 99th percentile [ms], from the stamp of the picture to the target pose that follows from it."""
    with tempfile.TemporaryDirectory() as folder:
        latencies, parts, gate = _measure(Path(folder))
    name = f"camera frame to command at the arm node, {len(latencies)} steps"
    return [_row(f"{name}, median", float(np.median(latencies)), MEDIAN_BAR),
            _row(f"{name}, 99%", float(np.quantile(latencies, 0.99)), TAIL_BAR),
            *(_row(f"{part}, median", float(np.median(values))) for part, values in parts.items()),
            _row(f"gate, command received to target sent, median of {len(gate)} one-second medians",
                 float(np.median(gate)), GATE_BAR)]


def _measure(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray], list[float]]:
    checkpoint = folder / "policy"
    make_learner("fosp", SPECS, preset("fosp", "small"), 0).save(checkpoint)
    with _graph(folder, checkpoint), Listener() as listener, GraphClient(domain=DOMAIN) as client:
        client.wait_ready(START_TIMEOUT)
        for seed in range(EPISODES):
            if len(listener.seen) >= STEPS:
                break
            if client.gate()["state"] in ("DISARMED", "FAULT"):
                client.arm()
            result = client.run_episode("original", seed, "policy", folder / "episodes")
        if len(listener.seen) < STEPS:
            raise RuntimeError(f"benchmark: {len(listener.seen)} steps in {EPISODES} episodes, expected {STEPS}; the "
                               f"last one: {result['message']}")
        return *listener.latencies(), listener.gate


class Listener:
    """Stamps of what was seen and commanded, and when the arm's topic carried it. Looked at a few times a second, with
    the middleware's times of receipt: to wake for every message takes a fifth of a core from the graph."""

    def __init__(self) -> None:
        self._context = Context()
        self._closing = threading.Event()
        self.seen: list[int] = []
        self.commands: list[tuple[int, int]] = []
        """(stamp of the command, stamp of the status that came after the first target with it) [ns]."""
        self.targets: list[tuple[int, int]] = []
        """(stamp, received) [ns]."""
        self.gate: list[float] = []

    def __enter__(self) -> Listener:
        # The threads that are started meanwhile, the middleware's, and not those of the graph's client in this process.
        thread_comes_first(CONTROL_PRIORITY)
        rclpy.init(context=self._context, domain_id=DOMAIN)
        self._node = rclpy.create_node("latency", context=self._context)
        group = TakenByHand()
        self._taps = [subscribe(self._node, kind, topic, profile, group, WAITING) for kind, topic, profile in (
            (Step, "/episode/step", qos.STEPS), (GateStatus, "/safety_gate/status", qos.STATUS),
            (PoseStamped, "/franka/target_pose", qos.COMMAND), (DiagnosticArray, "/diagnostics", qos.STATUS))]
        self._thread = threading.Thread(target=self._listen, name="listen", daemon=True)
        self._thread.start()
        thread_steps_back()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _listen(self) -> None:
        while not self._closing.wait(LOOK_PERIOD):
            steps, statuses, targets, reports = (list(take(tap)) for tap in self._taps)
            self.seen += [stamp_to_ns(message.header.stamp) for message, _ in steps]
            self.targets += [(stamp_to_ns(message.header.stamp), info["received_timestamp"])
                             for message, info in targets]
            for message, _ in statuses:
                stamp = stamp_to_ns(message.command_stamp)
                if not self.commands or stamp != self.commands[-1][0]:
                    self.commands.append((stamp, stamp_to_ns(message.header.stamp)))
            self.gate += [float(pair.value) for message, _ in reports for status in message.status
                          if status.name == "safety_gate" for pair in status.values
                          if pair.key == "command_latency_median_ms"]

    def latencies(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """[ms] (N,) frame to arm, and its parts."""
        commands, targets = np.array(self.commands, np.int64), np.array(self.targets, np.int64)
        # A step's command is the first one after its picture, and the target with it the last before the gate said so.
        following = np.searchsorted(commands[:, 0], np.array(self.seen, np.int64))
        known = following < len(commands)
        frames, (sent, said) = np.array(self.seen, np.int64)[known], commands[following[known]].T
        sending, received = targets[np.searchsorted(targets[:, 0], said) - 1].T
        return (received - frames) * 1e-6, {
            "camera frame to the policy's command": (sent - frames) * 1e-6,
            "policy's command to the gate's target": (sending - sent) * 1e-6,
            "gate's target to the arm node": (received - sending) * 1e-6}


@contextlib.contextmanager
def _graph(folder: Path, checkpoint: Path) -> Iterator[None]:
    environment = ros_environment(os.environ) | {"ROS_DOMAIN_ID": str(DOMAIN), "OMP_NUM_THREADS": "1"}
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(*command: str, log: str) -> Path:
        path = folder / f"{log}.log"
        with path.open("wb") as output:
            processes[log] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output,
                                              stderr=subprocess.STDOUT)
        return path

    def node(name: str, *files: str, **parameters: Any) -> None:
        words = [word for file in files for word in ("--params-file", str(CONFIG / file))]
        words += [word for key, value in parameters.items() for word in ("-p", f"{key}:={value}")]
        start(str(INSTALL / "lib" / "safe_policy_ros" / f"{name}_node"), "--ros-args", *words, log=name)

    try:
        server = start(sys.executable, "-m", "sim.safe_reach.server", "--link", "0", log="server")
        deadline = time.monotonic() + START_TIMEOUT
        while not (said := re.search(r"arm at (\S+), scene link at (\S+)", server.read_text())):
            if time.monotonic() > deadline or processes["server"].poll() is not None:
                raise RuntimeError(f"benchmark: the simulated arm did not start: {server.read_text()[-500:]}")
            time.sleep(0.1)
        start(sys.executable, "-m", "safe_policy_ros.latency_benchmark", log="camera")
        node("franka", "franka.yaml", "payload_none.yaml", robot_ip=said[1], realtime="ignore", autostart="true")
        # The policy is untrained: what it thinks of its actions may not stop them here.
        node("safety_gate", "safety_gate.yaml", autostart="true", max_violation_probability=1.0, max_cost_value=1000.0)
        node("scene", address=said[2])
        node("teleop", device="none")
        node("recorder", directory=folder)
        node("policy", checkpoint=checkpoint, require_replay="false")
        yield
    except UserError as error:
        ended = [(folder / f"{log}.log").read_text()[-500:] for log, process in processes.items()
                 if process.poll() is not None]
        raise RuntimeError(f"benchmark: {error}; ended: {ended}") from error
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGINT)
        for process in processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def camera() -> None:
    """The process that stands for the camera: pictures, and what the gate wants to know of them."""
    rclpy.init()
    node = rclpy.create_node("camera")
    images = node.create_publisher(Image, "/camera/color/image_raw", qos.SENSOR)
    statuses = node.create_publisher(FrameStatus, "/camera/frame_status", qos.SENSOR)
    rng = np.random.default_rng(0)
    messages = [image_to_msg(rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), 0) for _ in range(8)]
    come_first(CAMERA_PRIORITY)
    begin, count = time.monotonic(), 0
    # SIGINT reaches rclpy, which ends the context.
    while rclpy.ok():
        count += 1
        time.sleep(max(0.0, begin + count / RATE - time.monotonic()))
        message = messages[count % len(messages)]
        message.header.stamp = ns_to_stamp(time.time_ns())
        if rclpy.ok():
            images.publish(message)
            statuses.publish(FrameStatus(header=message.header, sequence=count))
    node.destroy_node()


def _row(name: str, value: float, bar: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "ms", "peer": None if bar is None else "bar", "peer_value": bar,
            "ratio": None if bar is None else value / bar}


if __name__ == "__main__":
    camera()
