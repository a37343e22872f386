"""Cameras, clocks, disks, networks, files and load."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Pose, Quaternion
from safe_policy_interfaces.msg import GateStatus
from safe_policy_ros import qos
from safe_policy_ros.client import GraphError
from safe_policy_ros.messages import image_to_msg
from sensor_msgs.msg import Image

from safe_policy_core.errors import UserError
from safe_policy_core.scheduling import ordinary
from tests.faults.cable import Cable
from tests.faults.fault import POLICY, SENDER, Action, Fault
from tests.faults.world import FaultWorld
from tests.ros.graph import CONFIG, wait_for

STEP = 10.0
"""[s]"""
BURN = "while True: pass"


class Source:
    """A camera driver's image topic, passed on by camera_node, that freezes or falls silent."""

    TOPIC = "/fault_camera/image_raw"

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    def prepare(self, world: FaultWorld) -> None:
        self._publisher = world.node.create_publisher(Image, self.TOPIC, qos.SENSOR)
        self._random = np.random.default_rng(0)
        self._frozen: Image | None = None
        self._on = True
        self._timer = world.node.create_timer(1 / 30, lambda: self._say(world))
        world.running.nodes["camera"].signal(signal.SIGKILL)
        world.running.nodes["camera"].wait(5.0)
        world.running.nodes["camera"] = world.graph.node("camera_node", camera="ros_topic", topic=self.TOPIC)
        world.await_ready("camera")

    def _say(self, world: FaultWorld) -> None:
        if not self._on:
            return
        message = self._frozen
        if message is None:
            picture = self._random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            message = image_to_msg(picture, world.node.get_clock().now().nanoseconds)
        self._last = message
        self._publisher.publish(message)

    def inject(self, world: FaultWorld) -> None:
        if self._silent:
            self._on = False
        else:
            self._frozen = self._last

    def heal(self, world: FaultWorld) -> None:
        self._frozen, self._on = None, True

    def remove(self, world: FaultWorld) -> None:
        world.node.destroy_timer(self._timer)
        world.node.destroy_publisher(self._publisher)
        world.start("camera")


def wrong_parameter(world: FaultWorld) -> float:
    """The gate is started again with a speed that no arm may have."""
    began = time.monotonic()
    gate = world.running.nodes["safety_gate"]
    gate.signal(signal.SIGTERM)
    gate.wait(5.0)
    started = world.graph.node("safety_gate_node", parameters=CONFIG / "safety_gate.yaml", autostart=True,
                               max_translation_speed=9.0)
    if started.wait(60.0) != 2 or "max_translation_speed" not in started.output:
        raise RuntimeError(f"the gate took max_translation_speed 9: {started.output}")
    return began


def _step_clock(seconds: float) -> Action:
    return lambda world: world.clock.step(seconds)


def set_clock_right(world: FaultWorld) -> None:
    world.clock.step(0.0)
    time.sleep(0.5)


def full_disk(world: FaultWorld) -> float:
    """Fills the file system of the recordings (a small one, made for it)."""
    began = time.monotonic()
    with (world.recordings / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 65536)
        except OSError:
            began = time.monotonic()
    return began


def empty_disk(world: FaultWorld) -> None:
    (world.recordings / "filler").unlink(missing_ok=True)


class BrokenStatus:
    """A status of the gate with a pose that is none: the policy's code that reads it raises."""

    def inject(self, world: FaultWorld) -> float:
        self._publisher = world.node.create_publisher(GateStatus, "/safety_gate/status", qos.STATUS)
        wait_for(lambda: self._publisher.get_subscription_count() >= 2, 5.0, "readers of the status")
        began = time.monotonic()
        self._publisher.publish(GateStatus(
            state=GateStatus.ACTIVE, epoch=1, target=Pose(orientation=Quaternion(w=0.0))))
        return began

    def heal(self, world: FaultWorld) -> None:
        world.node.destroy_publisher(self._publisher)


def burners(count: int) -> list[subprocess.Popen]:
    """Processes that do nothing but compute, as ordinary ones: the suite itself comes first, and so would its
    children, which then starve the machine instead of loading it."""
    with ordinary():
        return [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]


class Load:
    """Two processes for each core that do nothing but compute, and then the policy hangs."""

    def inject(self, world: FaultWorld) -> float:
        self._burners = burners(2 * (os.cpu_count() or 1))
        time.sleep(0.5)
        began = time.monotonic()
        world.running.nodes["policy"].signal(signal.SIGSTOP)
        return began

    def heal(self, world: FaultWorld) -> None:
        for burner in self._burners:
            burner.kill()
            burner.wait(5.0)


def cut_fci(world: FaultWorld) -> float:
    """No packet reaches the arm's address any more, nor comes from it."""
    cable = Cable(world.running.robot)
    cable.prepare()
    began = time.monotonic()
    cable.cut()
    return began


def join_fci(world: FaultWorld) -> None:
    Cable(world.running.robot).join()


def damaged_checkpoint(world: FaultWorld) -> float:
    """A checkpoint with one changed byte is offered to the policy while it acts, and again afterwards."""
    folder = Path(world.graph.directory) / "damaged"
    folder.mkdir(exist_ok=True)
    for path in world.checkpoint.iterdir():
        data = bytearray(path.read_bytes())
        if path.suffix == ".safetensors":
            data[len(data) // 2] ^= 0xFF
        (folder / path.name).write_bytes(data)
    client = world.client()
    _refused(lambda: client.load(folder), "episode is running")
    began = time.monotonic()
    world.call("stop")
    world.end_episode()
    _refused(lambda: client.load(folder), "sha256|SHA-256|damaged")
    return began


def damaged_episode(world: FaultWorld) -> float:
    """The fine-tuner is given an episode file that ends in the middle."""
    began = time.monotonic()
    world.call("stop")
    world.end_episode()
    if not world.finished:
        raise RuntimeError("no episode was finished yet that could be damaged")
    whole = world.finished[-1]
    broken = Path(world.graph.directory) / "broken.h5"
    broken.write_bytes(whole.read_bytes()[:whole.stat().st_size // 2])
    client = world.client()
    client.configure_tuner({"checkpoint": str(world.checkpoint), "data": [str(whole)],
                            "out": str(Path(world.graph.directory) / "tuned"), "seed": 0})
    _refused(lambda: client.learn(broken, 1), "broken.h5")
    return began


def _refused(ask: Callable[[], object], pattern: str) -> None:
    try:
        ask()
    except (GraphError, UserError) as error:
        if not re.search(pattern, str(error)):
            raise RuntimeError(f"refused, but for {error}") from error
        return
    raise RuntimeError("damaged data was taken")


_status, _load = BrokenStatus(), Load()
FROZEN, SILENT = Source(silent=False), Source(silent=True)

FAULTS = (
    Fault("camera_freezes", SENDER, FROZEN.inject, "camera_frozen", FROZEN.heal, prepare=FROZEN.prepare,
          remove=FROZEN.remove),
    Fault("camera_silent", SENDER, SILENT.inject, "camera_silent", SILENT.heal, prepare=SILENT.prepare,
          remove=SILENT.remove),
    Fault("parameter_out_of_range", SENDER, wrong_parameter, "no target", told=True),
    Fault("clock_step_forward", POLICY, _step_clock(STEP), "clock_step", set_clock_right),
    Fault("clock_step_back", POLICY, _step_clock(-STEP), "clock_step", set_clock_right),
    Fault("disk_full", POLICY, full_disk, "recorder: recording", empty_disk),
    Fault("callback_exception", POLICY, _status.inject, "pose: expected|stale_command|supervisor_lost", _status.heal),
    Fault("load_both_cores", POLICY, _load.inject, "stale_command|supervisor_lost", _load.heal),
    Fault("fci_cut", POLICY, cut_fci, "stale_state|stale_wrench|silent", join_fci),
    Fault("checkpoint_damaged", POLICY, damaged_checkpoint, "operator_stop", told=True),
    Fault("episode_damaged", POLICY, damaged_episode, "operator_stop", told=True))
