"""The safety gate as a process: the only publisher to the arm.

A thin shell around `safe_policy_core.safety.gate`. The main thread ticks at 100 Hz on the steady
clock; each tick first hands over what has arrived, in order and with its time of receipt. A command
that comes between two ticks makes one of its own, before which only commands are read. Services run
in a thread of their own, and one lock keeps them apart. Torch is not imported here: nothing in this
process may take longer than a tick.
"""

from __future__ import annotations

import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from safe_policy_interfaces.msg import GateStatus
from std_srvs.srv import Trigger

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from safe_policy_core.safety.gate import Decision, SafetyGate
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.motion import GATE_PERIOD
from safe_policy_core.scheduling import REALTIME_PRIORITY
from safe_policy_ros import qos
from safe_policy_ros.gate_inputs import TARGET_TOPIC, GateInputs
from safe_policy_ros.gate_report import TickRecord, diagnostics, status_message
from safe_policy_ros.messages import pose_stamped
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare
from safe_policy_ros.required_parameters import Kind, Number, Numbers, Text, declare_required

NAME = "safety_gate"
STATUS_TICKS, GRAPH_TICKS, REPORT_TICKS = 2, 10, 100
"""Ticks between two messages of status, looks at who publishes, and diagnostics."""
SHORTEST_TICK = 0.003
"""[s] Commands that come faster than this wait for each other: no sender may keep this process busy."""
CLOCKS_APART = 0.002
"""[s] Longest time between two looks at the steady clock, with one at the ROS clock in between."""
CALLBACKS_TIMEOUT = 10.0
"""[s] A thread of callbacks that is silent for so long is dead, and the gate with it (already in FAULT by then)."""
HINT = "limits have no defaults, set them in the parameter file (robot_bringup/config/safety_gate.yaml)"

PARAMETERS: dict[str, Kind] = {
    "frame": Text("base frame, the only one in which commands and poses are taken"),
    "workspace_low": Numbers(3, -2.0, 2.0, "lower corner of the box for the tool [m]"),
    "workspace_high": Numbers(3, -2.0, 2.0, "upper corner of the box for the tool [m]"),
    "nominal_quaternion": Numbers(4, -1.0, 1.0, "orientation (x, y, z, w) from which the tilt is measured"),
    "max_tilt": Number(0.01, 1.5, "largest rotation from the nominal orientation [rad]"),
    "max_translation_speed": Number(0.001, 0.5, "largest speed of the tool [m/s]"),
    "max_rotation_speed": Number(0.001, 1.5, "largest turning speed of the tool [rad/s]"),
    "max_translation_lead": Number(0.001, 0.1, "how far the target may run ahead of the arm [m]"),
    "max_rotation_lead": Number(0.001, 0.5, "how far the target may turn ahead of the arm [rad]"),
    "max_translation_acceleration": Number(0.1, 13.0, "of the target [m/s^2]"),
    "max_rotation_acceleration": Number(0.1, 25.0, "of the target [rad/s^2]"),
    "keep_out": Numbers(6, -3.0, 3.0, "low and high corner (x, y, z, x, y, z) of each box that the tool keeps out "
                        "of [m]", groups=True),
    "keep_out_margin": Number(0.001, 0.2, "distance that the target keeps from these boxes [m]"),
    "soft_force": Number(1.0, 100.0, "force on the tool from which motion against it fades [N]"),
    "hard_force": Number(1.0, 100.0, "force on the tool that is a fault [N]"),
    "soft_torque": Number(0.5, 50.0, "torque on the tool from which rotation against it fades [Nm]"),
    "hard_torque": Number(0.5, 50.0, "torque on the tool that is a fault [Nm]"),
    "learned_layer": Text("required (a policy without fresh estimates is stopped) or absent (methods that have none)"),
    "max_violation_probability": Number(0.01, 1.0, "estimate above which the policy is held"),
    "max_cost_value": Number(0.01, 1000.0, "estimated discounted cost above which the policy is held"),
    "monitor_timeout": Number(0.05, 1.0, "silence of a policy's estimates that is a fault [s]"),
    "cost_budget": Number(0.5, 1e6, "cost after which the policy is refused until a person resets it"),
    "camera_hold": Number(0.02, 0.5, "time without a new frame after which the policy is held [s]"),
    "camera_timeout": Number(0.02, 0.5, "time without a new frame that is a fault [s]"),
    "heartbeat_hold": Number(0.02, 0.5, "silence of the episode's runner after which motion is held [s]"),
    "heartbeat_timeout": Number(0.02, 0.5, "silence of the episode's runner that is a fault [s]"),
    "max_clock_step": Number(0.005, 1.0, "jump of the ROS clock against the steady one that is a fault [s]"),
    "max_measured_speed": Number(0.01, 1.7, "speed of the arm's tool that is a fault [m/s]"),
    "max_measured_rotation_speed": Number(0.05, 5.0, "turning speed of the arm's tool that is a fault [rad/s]"),
    "command_span": Number(0.01, 0.2, "how long a command moves the target: one control period [s]"),
    "command_timeout": Number(0.02, 0.5, "silence after a motion command that is a fault [s]"),
    "state_timeout": Number(0.02, 0.5, "silence of the measured pose that is a fault [s]"),
    "teleop_hold": Number(0.1, 5.0, "how long the operator keeps the policy out after the last motion [s]"),
    "stop_time": Number(0.02, 0.5, "ramp to rest when the gate stops the arm [s]"),
    "max_stamp_age": Number(0.05, 2.0, "oldest stamp of a command [s]"),
    "max_stamp_ahead": Number(0.001, 0.5, "how far a stamp may lie in the future [s]"),
    "quiet_time": Number(0.05, 10.0, "how long refused commands must have ceased before arming [s]"),
    "measured_margin": Number(0.001, 0.1, "how far outside the box the arm may be while armed [m]"),
    "max_settled_lead": Number(0.005, 0.1, "how far the arm may be from a target at rest [m]"),
    "settling_time": Number(0.2, 5.0, "how soon the arm must have come so near a target at rest [s]"),
    "measured_tilt_margin": Number(0.01, 0.5, "how far beyond max_tilt the arm may be while armed [rad]"),
    "arming_margin": Number(0.001, 0.02, "how far outside the box the arm may be when arming [m]"),
    "max_measured_jump": Number(0.005, 0.2, "largest move between two measured poses [m]"),
    "max_measured_turn": Number(0.05, 1.0, "largest turn between two measured poses [rad]")}


class SafetyGateNode(LifecycleNode):
    """Lifecycle: inactive it publishes nothing, so nothing reaches the arm; active it still has to be armed."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._config = GateConfig.from_mapping(declare_required(self, PARAMETERS, HINT))
        autostart = declare(self, "autostart", False, "configure and activate at start; arming is always explicit")
        self._lock = threading.Lock()
        self._gate: SafetyGate | None = None
        self._active = False
        self._next_tick = self._last_tick = time.monotonic()
        self._record = TickRecord()
        self._ticks = 0
        self._said: tuple[int, str, int] | None = None
        self._callbacks_alive = time.monotonic()
        self.create_timer(0.25, self._on_heartbeat, clock=Clock(clock_type=ClockType.STEADY_TIME))
        for transition in (self.trigger_configure, self.trigger_activate) if autostart else ():
            if transition() != TransitionCallbackReturn.SUCCESS:
                raise ConfigurationError(f"{NAME}: {transition.__name__} failed; its reason is in the log above")

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._targets = self.create_publisher(PoseStamped, TARGET_TOPIC, qos.COMMAND)
        self._statuses = self.create_publisher(GateStatus, "/safety_gate/status", qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._inputs = GateInputs(self)
        self._own_services = [self.create_service(Trigger, f"/safety_gate/{name}", handle) for name, handle in (
            ("arm", self._on_arm), ("stop", self._on_stop), ("reset_cost", self._on_reset_cost))]
        with self._lock:  # last: from here on the main thread looks at what was made above
            self._gate = SafetyGate(self._config)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        with self._lock:
            self._active, self._next_tick = True, time.monotonic()
        self.get_logger().info(f"ready and disarmed; box {self._config.limits.workspace_low} to "
                               f"{self._config.limits.workspace_high} m")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        with self._lock:
            if self._gate is not None:
                self._gate.stop(time.monotonic())
        time.sleep(self._config.times.stop_time + 2 * GATE_PERIOD)  # the main thread runs the ramp meanwhile
        with self._lock:
            self._active = False
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        with self._lock:
            self._gate = None
        for publisher in (self._targets, self._statuses, self._diagnostics):
            self.destroy_publisher(publisher)
        self._inputs.close()
        for service in self._own_services:
            self.destroy_service(service)
        return super().on_cleanup(state)

    # Services

    def _on_heartbeat(self) -> None:
        self._callbacks_alive = time.monotonic()

    def _on_arm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        now = time.monotonic()
        with self._lock:
            if self._gate is None or not self._active:
                response.success, response.message = False, "not armed: the gate is not active (lifecycle)"
            else:
                self._inputs.count_publishers(self._gate)
                response.success, response.message = self._gate.arm(now, self._clock_seconds())
        self.get_logger().info(response.message)
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            if self._gate is not None:
                self._gate.stop(time.monotonic())
        response.success, response.message = True, "stopped"
        return response

    def _on_reset_cost(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            if self._gate is not None:
                response.success, response.message = True, self._gate.cost.reset()
        self.get_logger().info(f"reset_cost: {response.message}")
        return response

    # The tick

    def work(self) -> bool:
        """One period of the gate; called again and again by the main thread."""
        came = self._wait(self._next_tick + GATE_PERIOD)
        now = self._last_tick = time.monotonic()
        if came:
            late = 0.0  # a tick between two of the clock's, so that no command waits for the next
        else:
            late = now - self._next_tick - GATE_PERIOD
            self._next_tick = max(self._next_tick + GATE_PERIOD, now - GATE_PERIOD)
        if now - self._callbacks_alive > CALLBACKS_TIMEOUT and late < CALLBACKS_TIMEOUT:
            raise RobotUnavailableError(f"{NAME}: no callback ran for {now - self._callbacks_alive:.1f} s")
        with self._lock:
            gate = self._gate
            if gate is None:
                return True
            # What else has come waits at most a period for the clock's own tick, as it would without the command.
            arrived = self._inputs.take(only_urgent=came)
            if not self._active:
                return True
            self._ticks += 1
            self._look_at_clocks(gate)
            commanded = self._inputs.hand_over(gate, arrived, self._clock_seconds())
            if self._ticks % GRAPH_TICKS == 0:
                self._inputs.count_publishers(gate)
            decision = gate.tick(time.monotonic())
            if decision.target is not None:
                self._targets.publish(pose_stamped(decision.target, self._clock_ns(), self._config.frame))
                self._record.passing += [time.monotonic() - received for received in commanded]
            self._record.add(late, time.monotonic() - now)
            self._speak(gate, decision, bool(commanded))
        return True

    def _wait(self, until: float) -> bool:
        """Until the next tick is due; True when a command came before, but no sooner than `SHORTEST_TICK`."""
        now = time.monotonic()
        rest = min(until, self._last_tick + SHORTEST_TICK) if self._active else until
        if rest > now:
            time.sleep(rest - now)
        return self._active and until > time.monotonic() and self._inputs.wait(until - time.monotonic())

    def _look_at_clocks(self, gate: SafetyGate) -> None:
        before, clock, after = time.monotonic(), self._clock_seconds(), time.monotonic()
        if after - before < CLOCKS_APART:  # otherwise this process was interrupted in between
            gate.clock.told(after, clock)

    def _speak(self, gate: SafetyGate, decision: Decision, commanded: bool) -> None:
        saying = (int(decision.state), decision.reason, gate.epoch)
        if saying != self._said:
            if decision.reason:
                self.get_logger().error(f"FAULT {decision.reason}: {gate.detail}; the arm stops, /safety_gate/arm "
                                        "re-arms")
                self._diagnostics.publish(diagnostics(gate, self._record, self._clock_ns()))
            self._said = saying
        elif self._ticks % STATUS_TICKS and not commanded:
            return
        self._statuses.publish(status_message(gate, decision, self._clock_ns(), self._config.frame))
        if self._ticks % REPORT_TICKS == 0:
            self._diagnostics.publish(diagnostics(gate, self._record, self._clock_ns()))
            self._record = TickRecord()

    def _clock_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def _clock_seconds(self) -> float:
        return self._clock_ns() * 1e-9

    def close(self) -> None:
        """Brings the target to rest before the process ends."""
        with self._lock:
            if self._gate is not None:
                self._gate.stop(time.monotonic())
        for _ in range(round(self._config.times.stop_time / GATE_PERIOD) + 1):
            self.work()


def _work(node: Node) -> bool:
    assert isinstance(node, SafetyGateNode)
    return node.work()


def main() -> None:
    sys.exit(run_node(SafetyGateNode, NAME, _work, priority=REALTIME_PRIORITY))


if __name__ == "__main__":
    main()
