"""The arm's own watchdog, without ROS."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")

from safe_policy_ros.arm.fake import FakeArm
from safe_policy_ros.arm.tracker import FollowConfig, TargetFollower

from safe_policy_core.geometry import Pose

pytestmark = pytest.mark.ros
CONFIG = FollowConfig(target_timeout=0.1, release_time=0.5, max_step=0.03, max_turn=0.3)
NOMINAL = np.array([1.0, 0.0, 0.0, 0.0])


def at(x: float, turn: float = 0.0) -> Pose:
    return Pose.from_vector(np.array([x, 0, 0.036, 0, 0, turn]), NOMINAL)


class Rig:
    def __init__(self) -> None:
        self.arm = FakeArm((0.5, 0.0, 0.036))
        self.follower = TargetFollower(self.arm, CONFIG)
        self.now = 10.0

    def target(self, pose: Pose) -> str:
        self.now += 0.01
        self.follower.put(pose, self.now)
        return self.update()

    def update(self, fault: str = "") -> str:
        return self.follower.update(at(0.5), fault, self.now)

    def wait(self, seconds: float) -> str:
        self.now += seconds
        return self.update()


def test_targets_start_the_tracking_and_silence_ends_it() -> None:
    rig = Rig()
    assert rig.update() == "" and not rig.arm.tracking
    assert rig.target(at(0.5)) == "tracking"
    assert rig.target(at(0.51)) == ""
    assert rig.wait(0.09) == ""
    assert "stopped: no target for 0.11 s" in rig.wait(0.02)
    assert rig.wait(0.38) == "", "said once"
    assert rig.arm.tracking, "the last target is held first, so that the arm comes to rest on it"
    assert "no target for 0.51 s" in rig.wait(0.02)
    assert not rig.arm.tracking
    assert rig.wait(1.0) == "", "said once"


def test_targets_that_come_again_in_time_are_followed() -> None:
    rig = Rig()
    rig.target(at(0.5))
    assert "stopped" in rig.wait(0.2)
    assert rig.target(at(0.51)) == "" and rig.arm.tracking
    assert "stopped" in rig.wait(0.2), "and the next silence is told again"


def test_an_old_target_never_starts_the_tracking() -> None:
    rig = Rig()
    rig.follower.put(at(0.5), rig.now)
    rig.now += 0.2
    assert rig.update() == "" and not rig.arm.tracking


@pytest.mark.parametrize("pose", [at(0.54), at(0.46), at(0.5, 0.4)])
def test_a_first_target_far_from_the_arm_is_refused(pose: Pose) -> None:
    rig = Rig()
    assert "refused" in rig.target(pose)
    assert not rig.arm.tracking
    assert rig.target(at(0.51)) == "tracking"


def test_a_jump_of_the_target_ends_the_tracking() -> None:
    rig = Rig()
    rig.target(at(0.5))
    assert "tracking ended" in rig.target(at(0.58))
    assert not rig.arm.tracking
    assert "from the arm" in rig.target(at(0.58)), "and the same target does not get in by trying again"


def test_targets_may_wander_far_in_small_steps() -> None:
    rig = Rig()
    for x in np.arange(0.5, 0.6, 0.02):
        assert rig.target(at(x)) in ("", "tracking")
    assert rig.arm.tracking


def test_a_fault_of_the_arm_ends_the_tracking_and_bars_it() -> None:
    rig = Rig()
    rig.target(at(0.5))
    assert "cartesian_reflex" in rig.update("errors cartesian_reflex")
    rig.follower.put(at(0.5), rig.now)
    assert rig.update("errors cartesian_reflex") == "" and not rig.arm.tracking


def test_an_arm_that_ends_the_tracking_by_itself_is_noticed() -> None:
    rig = Rig()
    rig.target(at(0.5))
    rig.arm.stop()
    assert "by itself" in rig.update()
    assert rig.target(at(0.5)) == "tracking"


def test_without_a_measured_pose_nothing_starts() -> None:
    rig = Rig()
    rig.follower.put(at(0.5), rig.now)
    assert rig.follower.update(None, "", rig.now) == "" and not rig.arm.tracking
