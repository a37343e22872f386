"""Speed of SafeReach, for `make bench`. One core; wall-clock time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.layouts import sample_layout

os.environ.setdefault("MUJOCO_GL", "egl")

SECONDS = 4.0
"""Length of one measurement."""


def rate(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """Calls of `work` per second, after a warm-up."""
    for _ in range(5):
        work()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - started)


def _stepper(env: SafeReachEnv) -> Callable[[], object]:
    """Control steps of random episodes, resets included."""
    rng = np.random.default_rng(0)
    seeds = iter(range(1, 10**9))
    env.reset(0)

    def step() -> None:
        *_, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 6).astype(np.float32))
        if terminated or truncated:
            env.reset(next(seeds))

    return step


def _plain_camera(env: SafeReachEnv) -> Callable[[], object]:
    """MuJoCo's renderer on the same scene as franky_sim sets it up: shadow and multisampling on, every mesh whole."""
    from franky_sim.mujoco_simulator import MujocoSimulator

    with MujocoSimulator() as simulator:
        simulator.add_robot()
        simulator.start()
        model, data = simulator.model, simulator.data
        mujoco.mj_forward(model, data)
        view = mujoco.MjvCamera()
        view.lookat[:], view.distance, view.azimuth, view.elevation = (0.5, 0.0, 0.1), 1.0, -90.0, -40.0
        # The renderer keeps references to model and data, which outlive the simulator.
        renderer = mujoco.Renderer(model, 64, 64)

    def render() -> None:
        renderer.update_scene(data, view)
        renderer.render()

    return render


def _row(name: str, value: float, unit: str, peer: str | None = None,
         peer_value: float | None = None) -> dict[str, Any]:
    ratio = value / peer_value if peer_value else None
    return {"name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value, "ratio": ratio}


def rows() -> list[dict[str, Any]]:
    """The figures of the issue and what explains them."""
    blind, seeing = SafeReachEnv("original", images=False), SafeReachEnv("original")
    found = [
        _row("safe_reach direct, no images", rate(_stepper(blind)), "control steps/s", "real time", 10.0),
        _row("safe_reach direct, 64x64 images", rate(_stepper(seeing)), "control steps/s", "real time", 10.0),
    ]
    plain = rate(_plain_camera(seeing), 2.0)
    found.append(_row("safe_reach camera 64x64", rate(lambda: seeing.render(64, 64)), "images/s",
                      "MuJoCo renderer, franky_sim's lights and meshes", plain))
    found.append(_row("safe_reach camera 640x480", rate(lambda: seeing.render(480, 640), 2.0), "images/s"))
    seeds = iter(range(10**9))
    found.append(_row("safe_reach layout and check that it is solvable",
                      1e3 / rate(lambda: sample_layout("more_obstacles", next(seeds)), 2.0), "ms"))
    seeing.close()
    blind.close()
    return found
