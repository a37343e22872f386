"""Turns a device in an operator's hand, or the scripted operator, into commands for the safety gate."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import rclpy.clock
import rclpy.duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from rclpy.node import Node
from safe_policy_interfaces.msg import EpisodeState, LabelEvent
from sensor_msgs.msg import Joy

from data_collection.devices import AXES, DeviceState, TeleopDevice
from data_collection.devices.factory import DEVICES, open_device
from data_collection.devices.keyboard import HELP, Keyboard
from data_collection.devices.scripted import ScriptedOperator
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError
from safe_policy_core.safety.motion import CONTROL_PERIOD
from safe_policy_core.scheduling import CONTROL_PRIORITY
from safe_policy_ros import qos
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.heartbeat import Heartbeat
from safe_policy_ros.messages import BASE_FRAME, ns_to_stamp, pose_from_msg, twist_stamped
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare
from sim.safe_reach import task
from sim.safe_reach.expert import ExpertPolicy

NAME = "teleop"
COMMAND_TOPIC = "/teleop/delta_twist_cmds"
TAKEOVER = "takeover"
ROLES = ("", "reward", "cost", "abort", TAKEOVER)
"""What a button may do: nothing, set a label while it is held, or take the arm."""
RATES = {"spacemouse": 100.0, "keyboard": 50.0, "scripted": 25.0, "none": 10.0}
"""[1/s]"""
GRIP = np.array([0.0, 0.0, 1e-6, 0.0, 0.0, 0.0])
"""[m/s] The gate gives the arm to an operator who asks for motion. This asks for a micrometre a second: it takes the
arm from the policy and holds it still while the takeover button is pressed."""
REPORT_PERIOD = 1.0
"""[s]"""
HALTS = 5
"""Zeros sent after the last motion: silence after a motion is a fault to the gate. Counted and not timed, so that
even a process that was held up sends them."""


class TeleopNode(Node):
    """Publishes only while the operator moves the device, so that the policy has the arm the rest of the time.

    device: opened already, in place of the one that the parameter `device` names.
    """

    def __init__(self, device: TeleopDevice | None = None, context: Context | None = None) -> None:
        super().__init__(NAME, context=context)
        name = declare(self, "device", "none", f"one of {', '.join(DEVICES)}")
        options = {
            "operator_yaw": declare(self, "operator_yaw", 0.0, "direction the operator looks in, 0 is from behind the "
                                    "robot, pi from in front of it [rad]", -2 * np.pi, 2 * np.pi),
            "axes": declare(self, "axes", list(AXES), "which displacement of the cap drives x, y, z, roll, pitch, yaw; "
                            "'-' before it turns it round, '' is none"),
            "deadband": declare(self, "deadband", 0.08, "share of full displacement that counts as rest", 0.0, 0.9),
            "translation_scale": declare(self, "translation_scale", 1.0, "share of the largest speed", 0.0, 1.0),
            "rotation_scale": declare(self, "rotation_scale", 1.0, "share of the largest turning speed", 0.0, 1.0)}
        translation = declare(self, "max_translation_step", task.MAX_TRANSLATION_STEP,
                              "motion in one control period at full displacement [m]", 0.0, 0.1)
        rotation = declare(self, "max_rotation_step", task.MAX_ROTATION_STEP,
                           "rotation in one control period at full displacement [rad]", 0.0, 0.5)
        self._speeds = np.array([translation] * 3 + [rotation] * 3) / CONTROL_PERIOD
        self._operator = declare(self, "operator", "scripted", "name of the operator whose episodes the scripted "
                                 "device drives, and of the person who presses the buttons")
        self._buttons = declare(self, "buttons", ["reward", "cost", "abort", TAKEOVER],
                                "what each button of the device does while it is held, in order; '' for nothing")
        if unknown := sorted(set(self._buttons) - set(ROLES)):
            raise ConfigurationError(f"parameter buttons: unknown {unknown}, expected some of {ROLES}")
        rate = declare(self, "rate", 0.0, "readings of the device in a second; 0 is the device's own", 0.0, 500.0)

        self._commands = self.create_publisher(TwistStamped, COMMAND_TOPIC, qos.COMMAND)
        self._joy = self.create_publisher(Joy, "/teleop/joy", qos.STATUS)
        self._labels = self.create_publisher(LabelEvent, "/labels", qos.LABELS)
        self._device = device or open_device(name, **options)
        self._halts = 0
        self._state = DeviceState()
        self._episode = ""
        if isinstance(self._device, ScriptedOperator):
            self.create_subscription(EpisodeState, "/episode/state", self._on_episode, qos.EPISODE_STATE)
            self._poses = subscribe(self, PoseStamped, "/franka/current_pose", qos.SENSOR, TakenByHand(), depth=1)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._heartbeat = Heartbeat(self, NAME)
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        self.create_timer(1 / (rate or RATES[name if device is None else "spacemouse"]), self._tick, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)
        self.get_logger().info(f"ready, device {name}")
        if isinstance(self._device, Keyboard):
            self.get_logger().info(HELP)

    def _tick(self) -> None:
        self._heartbeat.progress()
        if isinstance(self._device, ScriptedOperator):
            for message, _ in take(self._poses):
                self._on_pose(message)
        try:
            state = self._device.read(time.monotonic())
        except DeviceUnavailableError:
            self._send(DeviceState())
            raise
        self._send_labels(state)
        changed, self._state = state.buttons != self._state.buttons, state
        if state.moving or self._takes_over(state):
            self._halts = HALTS
            self._send(state)
        elif self._halts:
            self._halts -= 1
            self._send(state)
        elif changed:
            self._send_joy(state)

    def _takes_over(self, state: DeviceState) -> bool:
        return any(pressed for role, pressed in zip(self._buttons, state.buttons, strict=False) if role == TAKEOVER)

    def _send(self, state: DeviceState) -> None:
        twist = GRIP if self._takes_over(state) and not state.moving else state.twist * self._speeds
        self._commands.publish(twist_stamped(twist, self._now_ns()))
        self._send_joy(state)

    def _send_joy(self, state: DeviceState) -> None:
        message = Joy(axes=[float(value) for value in state.twist], buttons=[int(value) for value in state.buttons])
        message.header.stamp, message.header.frame_id = ns_to_stamp(self._now_ns()), BASE_FRAME
        self._joy.publish(message)

    def _send_labels(self, state: DeviceState) -> None:
        """A label for every button that was pressed or let go since the last reading."""
        before = self._state.buttons + (False,) * (len(state.buttons) - len(self._state.buttons))
        for kind, was, pressed in zip(self._buttons, before, state.buttons, strict=False):
            if kind not in ("", TAKEOVER) and was != pressed:
                self._labels.publish(LabelEvent(stamp=ns_to_stamp(self._now_ns()), kind=kind, value=float(pressed),
                                                source="button", who=self._operator))

    def _report(self) -> None:
        problem = self._device.health()
        if problem:
            self.get_logger().error(problem, throttle_duration_sec=10.0)
        status = DiagnosticStatus(name="teleop: device", message=problem or "ok",
                                  level=DiagnosticStatus.ERROR if problem else DiagnosticStatus.OK)
        message = DiagnosticArray(status=[status])
        message.header.stamp = ns_to_stamp(self._now_ns())
        self._diagnostics.publish(message)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    # The scripted operator

    def _on_pose(self, message: PoseStamped) -> None:
        assert isinstance(self._device, ScriptedOperator)
        if not self._device.active:
            return
        try:
            vector = pose_from_msg(message.pose).to_vector(np.asarray(task.NOMINAL_QUATERNION))
        except ValueError as error:
            # Without a pose the operator lets go by itself after a moment.
            self.get_logger().error(f"/franka/current_pose: {error}", throttle_duration_sec=1.0)
            return
        self._device.observe(vector, time.monotonic())

    def _on_episode(self, state: EpisodeState) -> None:
        assert isinstance(self._device, ScriptedOperator)
        if state.phase != EpisodeState.RUNNING or state.operator_name != self._operator:
            self._device.stop()
            return
        if state.episode_id == self._episode:
            return
        self._episode = state.episode_id
        try:
            layout = task.Layout.from_json(json.loads(state.metadata_json)["layout"])
            if layout.target is None:
                raise ValueError("no target")
        except (ValueError, KeyError, TypeError) as error:
            self.get_logger().error(f"episode {state.episode_id}: the scripted operator needs the layout in "
                                    f"metadata_json ({error!r}); it stays at rest")
            self._device.stop()
            return
        expert = ExpertPolicy(speed=1.0)
        self._device.start(lambda pose: expert.action(pose, layout), state.seed)
        self.get_logger().info(f"driving {state.episode_id}")

    def close(self) -> None:
        """Leaves the arm with an explicit halt: a motion followed by silence would fault the gate."""
        if self._halts:
            self._send(DeviceState())
            # Reliable delivery needs the writer to live until the reader has answered.
            self._commands.wait_for_all_acked(rclpy.duration.Duration(seconds=0.2))
        self._heartbeat.close()
        self._device.close()


def main() -> None:
    sys.exit(run_node(TeleopNode, NAME, priority=CONTROL_PRIORITY))


if __name__ == "__main__":
    main()
