"""Commands that lie, and channels with more than one voice."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from safe_policy_ros import qos
from safe_policy_ros.messages import ns_to_stamp, pose_stamped, stamp_to_ns

from safe_policy_core.geometry import Pose
from sim.safe_reach import task
from tests.faults.fault import SENDER, Action, Fault
from tests.faults.senders import truncated
from tests.faults.world import FaultWorld
from tests.ros.graph import wait_for


def _change(change: Callable[[TwistStamped], TwistStamped | bytes]) -> Action:
    def inject(world: FaultWorld) -> None:
        assert world.sender is not None
        world.sender.change = change

    return inject


def _stamped(shift: float | None) -> Callable[[TwistStamped], TwistStamped]:
    def change(command: TwistStamped) -> TwistStamped:
        now = stamp_to_ns(command.header.stamp)
        command.header.stamp = ns_to_stamp(0 if shift is None else now + int(shift * 1e9))
        return command

    return change


def _value(value: float) -> Callable[[TwistStamped], TwistStamped]:
    def change(command: TwistStamped) -> TwistStamped:
        command.twist.linear.x = value
        return command

    return change


def _frame(command: TwistStamped) -> TwistStamped:
    command.header.frame_id = "fr3_hand_tcp"
    return command


def operator_stop(world: FaultWorld) -> None:
    world.call("stop")


class Rogue:
    """A second publisher on a channel of the arm, in the suite's process but with a writer of its own."""

    def __init__(self, topic: str, kind: type, shift: tuple[float, float, float] | None) -> None:
        self._topic, self._kind, self._shift = topic, kind, shift

    def inject(self, world: FaultWorld) -> float:
        profile = qos.SENSOR if self._topic.endswith("current_pose") else qos.COMMAND
        self._publisher = publisher = world.node.create_publisher(self._kind, self._topic, profile)
        wait_for(lambda: publisher.get_subscription_count() > 0, 5.0, f"a reader of {self._topic}")
        began = time.monotonic()
        self._say(world)
        return began

    def _say(self, world: FaultWorld) -> None:
        now = world.node.get_clock().now().nanoseconds
        for _ in range(3):
            if self._kind is PoseStamped:
                position = world.watch.position() + np.array(self._shift)
                self._publisher.publish(pose_stamped(Pose(position, np.array(task.NOMINAL_QUATERNION)), now))
            else:
                assert world.sender is not None
                self._publisher.publish(world.sender.motion())
            time.sleep(0.01)

    def heal(self, world: FaultWorld) -> None:
        world.node.destroy_publisher(self._publisher)


def replay(world: FaultWorld) -> float:
    """The operator stops and arms again; then the commands of before come once more."""
    assert world.sender is not None
    world.sender.driving = False
    old = [copy.deepcopy(command) for command in world.sender.sent[-5:]]
    world.call("stop")
    time.sleep(0.8)
    world.arm()
    time.sleep(0.3)
    began = time.monotonic()
    for command in old:
        world.sender.send(command)
        time.sleep(0.02)
    return began


_rogue_sender = Rogue("/policy/delta_twist_cmds", TwistStamped, None)
_outside = Rogue("/franka/target_pose", PoseStamped, (0.0, 0.0, 0.2))
_jump = Rogue("/franka/current_pose", PoseStamped, (0.1, 0.0, 0.0))

FAULTS = (
    Fault("operator_stop", SENDER, operator_stop, "operator_stop"),
    Fault("stamp_stale", SENDER, _change(_stamped(-1.0)), "old_stamp"),
    Fault("stamp_future", SENDER, _change(_stamped(1.0)), "future_stamp"),
    Fault("stamp_zero", SENDER, _change(_stamped(None)), "zero_stamp"),
    Fault("command_nan", SENDER, _change(_value(float("nan"))), "non_finite"),
    Fault("command_infinite", SENDER, _change(_value(float("inf"))), "non_finite"),
    Fault("command_jump", SENDER, _change(_value(1e6)), "out_of_range"),
    Fault("command_wrong_shape", SENDER, _change(truncated), "stale_command"),
    Fault("command_wrong_frame", SENDER, _change(_frame), "wrong_frame"),
    Fault("second_publisher", SENDER, _rogue_sender.inject, "two_publishers", _rogue_sender.heal),
    Fault("target_outside_box", SENDER, _outside.inject, "two_publishers|more than one publisher", _outside.heal),
    Fault("pose_jump", SENDER, _jump.inject, "measured_jump|measured_workspace|two_publishers", _jump.heal),
    Fault("replay_after_rearm", SENDER, replay, "old_stamp|out_of_order|in_flight", moving=False))
