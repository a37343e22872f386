"""Every check of the preflight both ways: what is right is green, what is wrong is red and says what to do."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_collection.devices.device import DeviceState, TeleopDevice
from robot_bringup.environment import ROOT
from robot_bringup.preflight import command, equipment, files, machine, network
from robot_bringup.preflight.check import GREEN, RED, Check, green, perform, red, table
from safe_policy_core import replay_report
from safe_policy_core.checkpoint import save_checkpoint
from safe_policy_core.errors import CheckpointError, DeviceUnavailableError
from sim.safe_reach.task import SPECS

LIMITS = ROOT / "robot_bringup" / "config" / "safety_gate.yaml"


def is_red(check: Check, *words: str) -> None:
    assert check.status == RED, check
    assert check.remedy
    for word in words:
        assert word in check.found + check.remedy, check
    assert "\n" not in check.found + check.remedy


# The machine


def test_kernel(tmp_path: Path) -> None:
    flag = tmp_path / "realtime"
    is_red(machine.realtime_kernel(flag, "6.8.0-generic"), "6.8.0-generic", "PREEMPT_RT")
    flag.write_text("0\n")
    is_red(machine.realtime_kernel(flag, "6.8.0"), "PREEMPT_RT")
    flag.write_text("1\n")
    is_red(machine.realtime_kernel(flag, "6.8.0-rt", 0), "limits.conf")
    assert machine.realtime_kernel(flag, "6.8.0-rt", 99).status == GREEN


def test_disk(tmp_path: Path) -> None:
    assert machine.disk_space(tmp_path / "not" / "yet", 100, free=100.0).status == GREEN
    is_red(machine.disk_space(tmp_path, 1000, free=10.0), "10.0 GB", "1000 episodes")
    assert str(tmp_path) in machine.disk_space(tmp_path / "not" / "yet", 1).found


def test_clock() -> None:
    assert machine.clock(machine.ClockState(True, 0.004)).status == GREEN
    is_red(machine.clock(machine.ClockState(False, 0.0)), "chrony")
    is_red(machine.clock(machine.ClockState(True, 0.7)), "0.70 s")
    assert machine.kernel_clock().max_error >= 0, "the kernel answers here, too"


# The line to the arm


def test_pings_of_this_machine_come_back() -> None:
    times = network.round_trips("127.0.0.1", count=20, interval=0.0)
    assert len(times) == 20 and None not in times
    assert 0 < min(times) < 0.01


def test_jitter() -> None:
    steady = list(np.random.default_rng(0).uniform(1e-4, 2e-4, 300))
    assert network.jitter("172.16.0.2", steady).status == GREEN
    is_red(network.jitter("172.16.0.2", [*steady[:290], *[9e-4] * 10]), "0.90 ms", "no switch")
    is_red(network.jitter("172.16.0.2", [*steady[:299], None]), "1 lost")
    is_red(network.jitter("172.16.0.2", [None] * 3), "answers no ping")


class Server:
    """One answer of a robot's control port. `answer` None: takes the connection and stays silent."""

    def __init__(self, address: str, answer: tuple[int, int] | None) -> None:
        self._socket = socket.create_server((address, network.PORT))
        self._answer = answer
        self.asked: list[int] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        channel, _ = self._socket.accept()
        _, number, size = struct.unpack("<III", channel.recv(12, socket.MSG_WAITALL))
        self.asked.append(struct.unpack("<HH", channel.recv(size - 12, socket.MSG_WAITALL))[0])
        if self._answer is not None:
            channel.sendall(struct.pack("<IIIHH4x", 0, number, 20, *self._answer))
        self._channel = channel

    def close(self) -> None:
        self._socket.close()


def test_a_robot_says_its_version() -> None:
    server = Server("127.0.0.92", (network.INCOMPATIBLE, 9))
    try:
        assert network.robot_version("127.0.0.92", speaks=10) == (network.INCOMPATIBLE, 9)
        assert server.asked == [10]
    finally:
        server.close()


def test_a_robot_in_use_says_nothing() -> None:
    server = Server("127.0.0.93", None)
    try:
        with pytest.raises(TimeoutError) as error:
            network.robot_version("127.0.0.93", speaks=10, timeout=0.3)
        is_red(network.versions(10, error.value, "127.0.0.93"), "franka_node")
    finally:
        server.close()


def test_versions() -> None:
    assert network.versions(10, (network.SUCCESS, 10), "x").status == GREEN
    is_red(network.versions(10, (network.INCOMPATIBLE, 8), "x"), "version 8", "libfranka 10")
    is_red(network.versions(10, ConnectionRefusedError(111, "Connection refused"), "172.16.0.2"), "Desk", "172.16.0.2")


def test_libfranka_and_the_simulated_robot_speak_the_same_version(tmp_path: Path) -> None:
    """The library is asked what it speaks, the FCI simulator what it answers; neither number is in our code."""
    log = tmp_path / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen([sys.executable, "-m", "sim.safe_reach.server", "--fci", "127.0.0.94", "--link", "0"],
                                  cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        speaks = network.library_version()
        deadline = time.monotonic() + 90
        while "arm at 127.0.0.94" not in log.read_text():
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        check = network.versions(speaks, network.robot_version("127.0.0.94", speaks), "127.0.0.94")
    finally:
        server.terminate()
        server.wait(20)
    assert check.status == GREEN, check


# Equipment


def stream(rate: float = 30.0, seconds: float = 3.0) -> list[tuple[float, float]]:
    times = np.arange(0, seconds, 1 / rate)
    return [(100 + t + 0.01, 1e9 + t) for t in times]


def test_camera() -> None:
    assert equipment.camera(stream(), 30.0).status == GREEN
    is_red(equipment.camera([], 30.0), "0 pictures", "camera_node")
    is_red(equipment.camera(stream(20.0), 30.0), "20.0 pictures/s", "expected 30")
    is_red(equipment.camera([time for time in stream() if not 101 < time[0] < 101.3], 30.0), "longest gap", "gaps over")
    frozen = [(arrival, 1e9) for arrival, _ in stream()]
    is_red(equipment.camera(frozen, 30.0), "frozen")


class Mouse(TeleopDevice):
    def __init__(self, moves: bool = True, health: str = "", lost: bool = False) -> None:
        self._moves, self._health, self._lost, self.closed = moves, health, lost, False

    def read(self, now: float) -> DeviceState:
        if self._lost:
            raise DeviceUnavailableError("SpaceMouse: lost while reading")
        return DeviceState(np.full(6, 0.3 * self._moves))

    def health(self) -> str:
        return self._health

    def close(self) -> None:
        self.closed = True


def test_spacemouse() -> None:
    told: list[str] = []

    def watch(device: Mouse) -> Check:
        check = equipment.spacemouse(0.05, told.append, lambda: device)
        assert device.closed
        return check

    assert watch(Mouse()).status == GREEN
    assert "move the SpaceMouse" in told[0]
    is_red(watch(Mouse(moves=False)), "no motion within 0.05 s", "spacenavd")
    is_red(watch(Mouse(moves=False, health="only zeros; stop `spacenavd`")), "only zeros", "spacenavd")
    is_red(watch(Mouse(lost=True)), "lost")
    is_red(equipment.spacemouse(0.05, told.append), "no SpaceMouse", "70-spacemouse.rules")


# Files


def test_limits(tmp_path: Path) -> None:
    assert files.limits(LIMITS).status == GREEN, files.limits(LIMITS)
    content = yaml.safe_load(LIMITS.read_text())
    path = tmp_path / "gate.yaml"
    is_red(files.limits(path), "gate.yaml")
    del content["safety_gate"]["ros__parameters"]["max_tilt"]
    path.write_text(yaml.safe_dump(content))
    is_red(files.limits(path), "max_tilt", "missing")
    path.write_text("franka: {}")
    is_red(files.limits(path), "no parameters of safety_gate")
    path.write_text("a: [")
    is_red(files.limits(path), "gate.yaml")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    import torch

    save_checkpoint(tmp_path / "policy", {"w": torch.ones(3)}, {"method": "bc", "config": {}, "specs": SPECS.to_json()})
    return tmp_path / "policy"


def summary(episodes: int = 72, success: float = 1.0, violations: float = 0.0) -> dict:
    return {"episodes": episodes, "success_rate": success, "violation_rate": violations, "cost": 0.0,
            "success_interval": [0.8, 1.0], "violation_interval": [0.0, 0.2]}


def test_a_replay_of_exactly_these_weights(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    is_red(files.replay(checkpoint, "original"), "no simulation replay", "safe-policy replay")
    replay_report.write(checkpoint, "original", range(20), summary())
    assert files.replay(checkpoint, "original").status == GREEN
    is_red(files.replay(checkpoint, "more_obstacles"), "more_obstacles")
    replay_report.write(checkpoint, "more_obstacles", range(110), summary(110, violations=2 / 110))
    is_red(files.replay(checkpoint, "more_obstacles"), "2 violations in 110 episodes")
    replay_report.write(checkpoint, "more_obstacles", range(110), summary(110, violations=1 / 110))
    assert files.replay(checkpoint, "more_obstacles").status == GREEN, "one in 110 is under the bound with 95%"
    assert files.replay(checkpoint, "original").status == GREEN, "another task's result stays"
    for bad, words in ((summary(episodes=71), "72 episodes are needed"), (summary(success=0.75), "success in 75%")):
        replay_report.write(checkpoint, "original", range(20), bad)
        is_red(files.replay(checkpoint, "original"), words)
    replay_report.write(checkpoint, "original", range(20), summary())
    report = (checkpoint / replay_report.REPORT).read_text()
    save_checkpoint(checkpoint, {"w": torch.zeros(3)}, {"method": "bc", "config": {}, "specs": SPECS.to_json()})
    is_red(files.replay(checkpoint, "original"), "no simulation replay")
    (checkpoint / replay_report.REPORT).write_text(report)
    is_red(files.replay(checkpoint, "original"), "other weights")
    content = json.loads(report)
    content["tasks"]["original"]["violation_rate"] = -1
    (checkpoint / replay_report.REPORT).write_text(json.dumps(content))
    is_red(files.replay(checkpoint, "original"), "damaged")
    (checkpoint / replay_report.REPORT).write_text(report[:30])
    is_red(files.replay(checkpoint, "original"), "damaged")
    is_red(files.replay(tmp_path / "nowhere", "original"), "nowhere")
    with pytest.raises(CheckpointError):
        replay_report.problem(tmp_path / "nowhere", "original")


# The whole


def test_a_check_that_breaks_is_red() -> None:
    is_red(perform("camera", lambda: 1 // 0), "ZeroDivisionError")


def test_the_table_says_what_to_do_below_each_red_line() -> None:
    text = table([green("clock", "in step"), red("disk space", "0 GB", "free some")])
    assert text.splitlines()[0].split() == ["clock", "green", "in", "step"]
    assert text.splitlines()[2].strip() == "-> free some"
    assert text.endswith("1 red: do not arm the robot")


def test_every_check_can_be_left_out_by_its_name() -> None:
    checks = command.Preflight("127.0.0.1")._checks()
    result = command.Preflight("127.0.0.1", skip=tuple(checks)).run()
    assert result["ready"] and result["_exit_code"] == 0 and len(result["skipped"]) == len(checks) == 9
    assert not command.Preflight("127.0.0.1", skip=(*checks, "weather")).run()["ready"]


def test_the_command_prints_a_table_or_json_and_fails_with_a_red_line(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "safe_policy_core.cli", "preflight", "127.0.0.95", "--directory", str(tmp_path),
                 "--skip", "camera", "spacemouse", "clock", "kernel", "network", "versions"]
    run = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False)
    assert run.returncode == 1, run.stderr
    assert "simulation replay" in run.stdout and "-> add --checkpoint" in run.stdout
    run = subprocess.run([*arguments, "replay", "--json"], capture_output=True, text=True, cwd=ROOT, check=False,
                         env=dict(os.environ))
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["ready"] is True and run.returncode == 0, result
