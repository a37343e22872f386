"""The gate's neighbours, as a test needs them: an arm's state, senders of commands, a listener."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped, WrenchStamped
from rclpy.context import Context
from safe_policy_interfaces.msg import EpisodeState, FrameStatus, GateStatus, LabelEvent, Monitor
from safe_policy_ros import qos
from safe_policy_ros.messages import ns_to_stamp, pose_from_msg, pose_stamped, stamp_to_ns, twist_stamped
from safe_policy_ros.spinner import Spinner, wait_for_server
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from safe_policy_core.geometry import Pose
from tests.ros.graph import Prompt, wait_for

START_TIMEOUT = 60.0
"""[s] Python and ROS load slowly where two cores are shared."""
CENTRE = Pose(np.array([0.5, 0.0, 0.036]), np.array([1.0, 0.0, 0.0, 0.0]))


class GateProbe:
    """A node in the test's own process that listens to the gate, and plays its neighbours on request.

    talking: who of them speaks, 100 times a second: arm, wrench, camera, runner and monitor of the policy.
    """

    def __init__(self, domain: int) -> None:
        self._prompt = Prompt()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = node = rclpy.create_node("gate_probe", context=self._context)
        self.statuses: list[tuple[float, GateStatus]] = []
        self.targets: list[tuple[float, Pose]] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.measured = CENTRE
        self.follows = True
        node.create_subscription(GateStatus, "/safety_gate/status",
                                 lambda m: self.statuses.append((time.monotonic(), m)), qos.STATUS)
        node.create_subscription(PoseStamped, "/franka/target_pose", self._on_target, qos.COMMAND)
        node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, qos.STATUS)
        self.talking = {"arm", "wrench", "camera", "runner", "monitor"}
        self.wrench = np.zeros(6)
        self.violation_probability = 0.1
        self.frame_repeated = False
        self._frames = 0
        self._states = node.create_publisher(PoseStamped, "/franka/current_pose", qos.SENSOR)
        self._wrenches = node.create_publisher(WrenchStamped, "/franka/external_wrench", qos.SENSOR)
        self._cameras = node.create_publisher(FrameStatus, "/camera/frame_status", qos.SENSOR)
        self._heartbeats = node.create_publisher(Header, "/episode/heartbeat", qos.COMMAND)
        self._monitors = node.create_publisher(Monitor, "/policy/monitor", qos.COMMAND)
        self.phases = node.create_publisher(EpisodeState, "/episode/state", qos.EPISODE_STATE)
        self.labels = node.create_publisher(LabelEvent, "/labels", qos.LABELS)
        self._commands: dict[str, Any] = {}
        self._clients = {name: node.create_client(Trigger, f"/safety_gate/{name}")
                         for name in ("arm", "stop", "reset_cost")}
        self._arm_timer = node.create_timer(0.01, self._publish_state, clock=_steady())
        self._stream_timer: Any = None
        self._spinner = Spinner(node)

    def _on_target(self, message: PoseStamped) -> None:
        pose = pose_from_msg(message.pose)
        self.targets.append((time.monotonic(), pose))
        if self.follows:
            self.measured = pose

    def _publish_state(self) -> None:
        now = self.now_ns()
        header = Header(stamp=ns_to_stamp(now), frame_id="fr3_link0")
        if "arm" in self.talking:
            self._states.publish(pose_stamped(self.measured, now))
        if "wrench" in self.talking:
            wrench = WrenchStamped(header=header)
            force, torque = wrench.wrench.force, wrench.wrench.torque
            force.x, force.y, force.z, torque.x, torque.y, torque.z = (float(v) for v in self.wrench)
            self._wrenches.publish(wrench)
        if "camera" in self.talking:
            self._frames += 1
            self._cameras.publish(FrameStatus(header=header, sequence=self._frames, repeated=self.frame_repeated))
        if "runner" in self.talking:
            self._heartbeats.publish(header)
        if "monitor" in self.talking:
            self._monitors.publish(Monitor(header=header, violation_probability=self.violation_probability))

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def publisher(self, source: str = "policy") -> Any:
        """This process's publisher of commands of `source`, made when it is first asked for and connected."""
        if source not in self._commands:
            publisher = self.node.create_publisher(TwistStamped, f"/{source}/delta_twist_cmds", qos.COMMAND)
            self._commands[source] = publisher
            wait_for(lambda: publisher.get_subscription_count() > 0, 10.0, f"the gate listens to {source}")
        return self._commands[source]

    def send(self, twist: Any, source: str = "policy", frame: str = "fr3_link0", stamp_ns: int | None = None,
             ahead: float = 0.0) -> None:
        """ahead [s]: how far the stamp lies in the future."""
        stamp = self.now_ns() + int(ahead * 1e9) if stamp_ns is None else stamp_ns
        self.publisher(source).publish(twist_stamped(np.asarray(twist, float), stamp, frame))

    def stream(self, seconds: float, twist: Any, source: str = "policy", period: float = 0.05) -> None:
        """Sends `twist` every `period` for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.send(twist, source)
            time.sleep(period)

    def call(self, service: str = "arm") -> tuple[bool, str]:
        client = self._clients[service]
        wait_for_server(client.service_is_ready, START_TIMEOUT, service)
        answer = self._spinner.wait(client.call_async(Trigger.Request()), 5.0, service)
        return answer.success, answer.message

    def arm(self) -> None:
        """Arms; waits for the gate to have heard of the arm first."""
        wait_for(lambda: self.call("arm")[0], 20.0, "arming")
        wait_for(lambda: self.status.state == GateStatus.HOLD, 2.0, "HOLD")

    def ask(self, client: Any, request: Any, what: str) -> Any:
        """The answer of a service that may be asked more than once."""
        return self._spinner.ask(client, request, 5.0, what)

    def release_publishers(self) -> None:
        """Leaves the command channels to others."""
        for publisher in self._commands.values():
            self.node.destroy_publisher(publisher)
        self._commands.clear()

    @property
    def status(self) -> GateStatus:
        wait_for(lambda: self.statuses, START_TIMEOUT, "a status of the gate")
        return self.statuses[-1][1]

    def await_fault(self, reason: str, timeout: float = 2.0) -> float:
        """Waits for FAULT; returns the receive time (monotonic) of the first status that said so."""
        wait_for(lambda: self.status.state == GateStatus.FAULT, timeout, f"FAULT {reason}")
        assert self.status.reason == reason, f"FAULT {self.status.reason}, not {reason}"
        first = len(self.statuses) - 1
        while first and self.statuses[first - 1][1].state == GateStatus.FAULT:
            first -= 1
        return self.statuses[first][0]

    def target_speed(self, seconds: float) -> float:
        """Fastest commanded translation [m/s] over the coming `seconds`; 0 when nothing is published."""
        first = len(self.targets)
        time.sleep(seconds)
        positions = [pose.position for _, pose in self.targets[first:]]
        return max((float(np.linalg.norm(b - a)) / 0.01 for a, b in itertools.pairwise(positions)),
                   default=0.0)

    def close(self) -> None:
        self._spinner.close()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._prompt.end()


def _steady() -> Any:
    from rclpy.clock import Clock, ClockType
    return Clock(clock_type=ClockType.STEADY_TIME)


__all__ = ["CENTRE", "GateProbe", "stamp_to_ns"]
