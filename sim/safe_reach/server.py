"""The SafeReach scene behind libfranka's network protocol, in real time: `python -m sim.safe_reach.server`.

One loop at 1 kHz serves libfranka clients (franky_sim), steps the physics, watches contacts, publishes
a snapshot every 10 ms and answers scene requests. Nothing in it waits or renders.
"""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import sys
import time
from typing import Any

import numpy as np

from safe_policy_core.errors import RobotUnavailableError, UserError
from safe_policy_core.scheduling import come_first, on_simulated_arms_core
from sim.safe_reach import task
from sim.safe_reach.arm import PERIOD
from sim.safe_reach.contacts import ContactMonitor
from sim.safe_reach.fci import ArmSimulationServer
from sim.safe_reach.link import DEFAULT_ADDRESS, parse_address
from sim.safe_reach.link_server import LinkServer
from sim.safe_reach.lockstep import Lockstep
from sim.safe_reach.scene import SHAPES, Scene, build_simulator
from sim.safe_reach.snapshot import SnapshotWriter, memory_path

log = logging.getLogger("safe_reach.server")

PUBLISH_EVERY = 10
"""Physics steps between two snapshots."""
MAX_DELAY = 0.01
"""A loop later than this [s] gives up the lost time instead of running faster than real time to catch up: to the gate's
clock the arm would then move faster than it does."""
REPORT_EVERY = 10_000
"""Physics steps between two reports of lost time."""


class SafeReachServer:
    """The loop and everything in it. Use as a context manager.

    fci_hostname: address for libfranka clients, or None for the first free one from 127.0.0.1 on.
    link_port: port of the scene link, 0 for a free one. Raises `RobotUnavailableError` for one in use.
    """

    def __init__(self, fci_hostname: str | None = None, link_port: int = 0) -> None:
        self._hostnames = {} if fci_hostname is None else {"hostname_candidates": [fci_hostname]}
        self._link_port = link_port

    def __enter__(self) -> SafeReachServer:
        self._link = LinkServer(self._link_port, self._handle)
        self._simulator = build_simulator()
        self._simulator.__enter__()
        self._fci = ArmSimulationServer(self._simulator, **self._hostnames)
        try:
            self._fci.init()
        except Exception as error:
            self._link.close()
            raise RobotUnavailableError(f"robot address {self._hostnames or 'on 127.*'}: cannot be bound ({error}); "
                                        "another server uses it? choose one with --fci") from error
        self.fci_hostname: str = self._simulator.robots[0].hostname
        self.port = self._link.port
        self._scene = Scene(self._simulator.model, self._simulator.data)
        self._monitor = ContactMonitor(self._scene)
        self._generation = self._count = 0
        self._lost = 0.0
        self._memory = SnapshotWriter(memory_path(self.port))
        self._publish()
        self._simulator.register_post_step_callback(self._after_step)
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.remove()
        self._fci.cleanup()
        self._simulator.__exit__(None, None, None)
        self._link.close()

    def run(self) -> None:
        """Steps in real time until interrupted. Absolute deadlines: a late cycle does not slow the clock."""
        deadline = time.monotonic()
        arm = self._fci.robot_servers[0]
        lockstep = Lockstep(arm)
        while True:
            # As SimulationServer.run_once, which also sleeps for 0 s and so gives the core away every cycle.
            lockstep.exchange()
            self._simulator.step()
            arm.send_state()
            deadline += PERIOD
            remaining = deadline - time.monotonic()
            if remaining > 0:
                time.sleep(remaining)
            elif remaining < -MAX_DELAY:
                self._lost += -remaining
                deadline = time.monotonic()
            if self._count % REPORT_EVERY == 0 and self._lost > 0:
                log.warning("the machine is too busy for 1 kHz: %.0f%% of the last %.0f s were lost",
                            100 * self._lost / (REPORT_EVERY * PERIOD + self._lost), REPORT_EVERY * PERIOD)
                self._lost = 0.0

    def _after_step(self, _: Any) -> None:
        self._monitor.update()
        self._count += 1
        if self._count % PUBLISH_EVERY == 0:
            self._link.poll()
            self._publish()

    def _publish(self) -> None:
        data, tool = self._simulator.data, self._scene.tool
        self._memory.write(
            generation=self._generation, steps=self._count, qpos=data.qpos, shapes=self._scene.shapes,
            target=np.concatenate([data.mocap_pos[0], data.mocap_quat[0]]),
            tool=np.concatenate([tool.position, tool.quaternion]), cost=self._monitor.cost,
            touching=self._monitor.touching, cost_onsets=self._monitor.cost_onsets,
            touch_onsets=self._monitor.touch_onsets)

    def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["command"] == "hello":
            return {"fci_hostname": self.fci_hostname, "snapshot": str(self._memory.path)}
        if request["command"] == "place":
            self._scene.place(checked_layout(request["layout"]))
            self._monitor.clear()
            self._generation += 1
            self._publish()
            return {"generation": self._generation}
        raise ValueError(f"unknown command {request['command']!r}, expected hello or place")


def checked_layout(data: dict[str, Any]) -> task.Layout:
    """A layout from JSON. Raises `ValueError` naming what is wrong with it."""
    layout = task.Layout.from_json(data)
    if len(layout.obstacles) > task.MAX_OBSTACLES:
        raise ValueError(f"expected at most {task.MAX_OBSTACLES} obstacles, got {len(layout.obstacles)}")
    for item in (*layout.obstacles, *([layout.target] if layout.target else [])):
        if item.shape not in SHAPES:
            raise ValueError(f"shape: expected one of {SHAPES}, got {item.shape!r}")
        inside = np.abs(np.subtract((item.x, item.y), task.CENTRE)).max() <= task.HALF_WIDTH
        if not (inside and np.isfinite(item.yaw)):
            raise ValueError(f"object at ({item.x}, {item.y}): expected a place in the operating area")
    return layout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fci", default=None, help="address for libfranka (default: the first free from 127.0.0.1)")
    parser.add_argument("--link", type=int, default=parse_address(DEFAULT_ADDRESS)[1],
                        help="local port of the scene link (0: any free one)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with SafeReachServer(arguments.fci, arguments.link) as server:
            log.info("arm at %s, scene link at 127.0.0.1:%d", server.fci_hostname, server.port)
            come_first()  # in the arm's place, which has a computer of its own
            # Nothing allocated per cycle lives long; a collection would stop the loop for milliseconds.
            gc.collect()
            gc.freeze()
            gc.disable()
            with on_simulated_arms_core():
                server.run()
    except KeyboardInterrupt:
        return 0
    except UserError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
