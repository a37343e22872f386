"""The simulated scene as a process: /scene/reset, and its contact sensors as labels."""

from __future__ import annotations

import json
import sys
import threading
import time

from rclpy.node import Node
from safe_policy_interfaces.msg import LabelEvent
from safe_policy_interfaces.srv import ResetScene

from safe_policy_core.errors import RobotUnavailableError, UserError
from safe_policy_core.scheduling import CONTROL_PRIORITY
from safe_policy_ros import qos
from safe_policy_ros.messages import ns_to_stamp
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare
from sim.safe_reach.link import DEFAULT_ADDRESS, SceneLink
from sim.safe_reach.snapshot import Snapshot

NAME = "scene"
PERIOD = 0.01
"""[s] As often as the server publishes, so that a label is at most one snapshot late."""
SILENCE = 2.0
"""[s] A scene whose snapshots stand still for so long is dead."""


class SceneNode(Node):
    """Publishes a `LabelEvent` whenever cost or reward of the scene changes.

    Contacts shorter than a snapshot are not lost: the scene counts them, and the node says both edges.
    """

    def __init__(self) -> None:
        super().__init__(NAME)
        address = declare(self, "address", DEFAULT_ADDRESS, "scene link of the simulator, host:port")
        timeout = declare(self, "connect_timeout", 30.0, "how long to wait for the simulator [s]", 0.5, 120.0)
        self._link = connect(address, timeout)
        self._watch = LabelWatch()
        self._labels = self.create_publisher(LabelEvent, "/labels", qos.LABELS)
        self.create_service(ResetScene, "/scene/reset", self._on_reset)
        self._watching = threading.Lock()
        self.get_logger().info(f"ready, scene at {address}")

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        try:
            layout = self._link.reset(request.task, request.seed, request.clear)
        except UserError as error:
            response.message = str(error)
            return response
        self._look()  # levels of the old scene end before the answer
        response.success, response.layout_json = True, json.dumps(layout)
        return response

    def work(self) -> bool:
        """One look at the scene; in the main thread, where it takes a tenth of what a timer of ROS would."""
        time.sleep(PERIOD)
        self._look()
        return True

    def _look(self) -> None:
        with self._watching:
            self._publish_changes()

    def _publish_changes(self) -> None:
        snapshot = self._link.snapshot()
        age = (time.monotonic_ns() - snapshot.monotonic_ns) * 1e-9
        if age > SILENCE:
            raise RobotUnavailableError(f"{NAME}: the simulated scene has stood still for {age:.1f} s")
        for kind, value in self._watch.update(snapshot):
            self._labels.publish(LabelEvent(stamp=ns_to_stamp(snapshot.time_ns), kind=kind, value=float(value),
                                            source="contact_sensor", who=""))

    def close(self) -> None:
        self._link.close()


class LabelWatch:
    """Turns snapshots into changes of the labels reward (target touched) and cost."""

    def __init__(self) -> None:
        self._generation: int | None = None
        self._levels = {"reward": False, "cost": False}
        self._onsets = {"reward": 0, "cost": 0}

    def update(self, snapshot: Snapshot) -> list[tuple[str, bool]]:
        """(kind, new level) of every change since the last snapshot, in order."""
        levels = {"reward": snapshot.touching, "cost": snapshot.cost}
        onsets = {"reward": snapshot.touch_onsets, "cost": snapshot.cost_onsets}
        if self._generation is None:  # a node that starts late knows nothing of what was before
            self._onsets = dict(onsets)
        elif snapshot.generation != self._generation:  # a new layout counts from zero
            self._onsets = dict.fromkeys(onsets, 0)
        self._generation = snapshot.generation
        changes = []
        for kind, now in levels.items():
            level = self._levels[kind]
            for _ in range(max(0, onsets[kind] - self._onsets[kind])):
                changes += [(kind, False), (kind, True)] if level else [(kind, True)]
                level = True
            if level != now:
                changes.append((kind, now))
        self._levels, self._onsets = levels, onsets
        return changes


def connect(address: str, timeout: float) -> SceneLink:
    """Tries for `timeout` seconds: the simulator may still be starting. Raises `RobotUnavailableError`."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return SceneLink(address)
        except RobotUnavailableError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def main() -> None:
    sys.exit(run_node(SceneNode, NAME, SceneNode.work, priority=CONTROL_PRIORITY))


if __name__ == "__main__":
    main()
