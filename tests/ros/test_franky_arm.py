"""libfranka's settings of the arm, read back from the FCI simulator in this process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from safe_policy_ros.arm.config import ArmConfig
from safe_policy_ros.arm.franky import FrankyArm
from safe_policy_ros.arm.gripper import FrankyGripper

from safe_policy_core.errors import RobotUnavailableError
from tests.ros.graph import ARM, wait_for

pytestmark = pytest.mark.ros
LOAD = {"load_mass": 0.4, "load_centre": (0.0, 0.01, 0.05),
        "load_inertia": (0.001, 0.0, 0.0, 0.0, 0.002, 0.0, 0.0, 0.0, 0.003)}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = subprocess.Popen([sys.executable, "-m", "sim.safe_reach.server", "--link", "0"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    yield next(found[1] for line in server.stdout if (found := re.search(r"arm at (\S+), scene link", line)))
    server.kill()
    server.wait()


def config(address: str) -> ArmConfig:
    values = {}
    for path in ARM:
        values |= yaml.safe_load(path.read_text())["franka"]["ros__parameters"]
    names = ArmConfig.__dataclass_fields__.keys() & values.keys()
    return ArmConfig(address=address, realtime=False, **{name: values[name] for name in names})


def test_what_was_set_is_checked_before_every_motion(address: str) -> None:
    arm = FrankyArm(replace(config(address), **LOAD))
    try:
        assert arm.settings["load_mass_kg"] == pytest.approx(0.4)
        assert arm.read().success_rate is None, "no control loop runs"
        arm.start()
        rate = wait_for(lambda: arm.read().success_rate, 2.0, "the control loop")
        assert arm.tracking and rate == pytest.approx(1.0, abs=0.05)
        arm.stop()
        assert not arm.tracking
        arm._robot.set_load(0.0, np.zeros(3), np.zeros(9))  # what Desk or another program may do meanwhile
        with pytest.raises(RobotUnavailableError, match=r"load_mass: expected \[0.4\] kg, the arm has \[0.0\]"):
            arm.start()
        assert not arm.tracking
    finally:
        arm.close()


def test_the_control_loop_takes_turns_with_the_simulated_arm_on_its_core(address: str) -> None:
    cores = os.sched_getaffinity(0)
    arm = FrankyArm(config(address))
    try:
        before = set(os.listdir("/proc/self/task"))
        arm.start()
        started = set(os.listdir("/proc/self/task")) - before
        assert [os.sched_getaffinity(int(thread)) for thread in started] == [{min(cores)}]
        assert os.sched_getaffinity(0) == cores, "this thread goes where it likes"
    finally:
        arm.close()


def test_the_hand_answers(address: str) -> None:
    gripper = FrankyGripper(address)
    assert gripper.width == pytest.approx(0.0, abs=1e-3), "the scene's fingers are closed"
    gripper.open()
