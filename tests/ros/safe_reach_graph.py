"""The whole simulated graph as real processes: FCI server, arm, gate, scene, camera, and what a test adds."""

from __future__ import annotations

import contextlib
import fcntl
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.ros.graph import ARM, CONFIG, Graph, Process, ros_graph, wait_for

REAL_GATE = (CONFIG / "safety_gate.yaml",)
SIMULATED_GATE = (*REAL_GATE, CONFIG / "safety_gate_simulated.yaml")
"""Parameter files of the gate before a real arm, and before a simulated one, which shares the machine with it."""
SIMULATED_PATIENCE = 1.75
"""As in safe_reach_sim.launch.yaml."""
READY_TIMEOUT = 90.0
"""[s] Python, torch and MuJoCo load slowly where two cores are shared."""


class SafeReachGraph:
    """nodes: processes by name; each can be stopped or killed by a test. fci: the arm's address, "" for a free one.
    gate: the gate's parameter files."""

    def __init__(self, graph: Graph, fci: str = "", gate: tuple[Path, ...] = SIMULATED_GATE) -> None:
        self.graph, self.gate = graph, gate
        self.nodes: dict[str, Process] = {}
        server = graph.python("server", "-m", "sim.safe_reach.server", "--link", "0", *(("--fci", fci) if fci else ()))
        said = wait_for(lambda: re.search(r"arm at (\S+), scene link at (\S+)", server.output), READY_TIMEOUT,
                        "the FCI server")
        self.robot, self.scene = said.groups()
        self.nodes["server"] = server

    def start_world(self, **gate: object) -> None:
        """Everything between the policy's channel and the scene. gate: single parameters of the safety gate."""
        self.nodes["franka"] = self.graph.node("franka_node", parameters=ARM, robot_ip=self.robot,
                                                realtime="ignore")
        self.nodes["safety_gate"] = self.graph.node("safety_gate_node", autostart=True, **gate, parameters=self.gate)
        self.nodes["scene"] = self.graph.node("scene_node", address=self.scene)
        self.start_camera()

    def start_camera(self) -> None:
        self.nodes["camera"] = self.graph.node("camera_node", camera="simulated", address=self.scene)

    def start_episodes(self) -> None:
        """What runs and records episodes, with the scripted operator."""
        self.nodes["teleop"] = self.graph.node("teleop_node", device="scripted")
        self.nodes["recorder"] = self.graph.node("recorder_node", directory=self.graph.directory / "recordings")
        self.start_policy()

    def start_policy(self, **parameters: object) -> None:
        self.nodes["policy"] = self.graph.node("policy_node", patience=SIMULATED_PATIENCE, require_replay=False,
                                               **parameters)

    def logs(self) -> str:
        """The end of every process's output, for a failed test."""
        return "\n".join(f"--- {name}\n{process.output[-1500:]}" for name, process in self.nodes.items())


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One at a time on a machine: two such graphs in real time are more than two cores hold."""
    with (Path(tempfile.gettempdir()) / "safe_policy_graph.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def safe_reach_graph(directory: Path) -> Iterator[SafeReachGraph]:
    """A `SafeReachGraph` that has the machine to itself."""
    with alone(), ros_graph(directory) as graph:
        yield SafeReachGraph(graph)
