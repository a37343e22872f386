"""What a SAS policy makes of a task seen from above: density, G, region of attraction, ways (SAS Figure 3).

`safe-policy report DIR --landscape CHECKPOINT --landscape-task PointGoal1` draws it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt

from safe_policy_core.checkpoint import find_checkpoint, read_manifest
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.evaluation import rollout
from safe_policy_core.interfaces import Policy, RobotEnv
from safe_policy_core.methods.registry import load_policy
from safe_policy_core.methods.sas.landscape import landscape
from safe_policy_core.methods.sas.policy import SasPolicy
from sim.collectors.tasks import find_task
from sim.safe_reach.state import StateReachEnv
from sim.safe_reach.task import MOTION_LIMITS
from sim.safety_gymnasium import SafetyGymnasiumEnv

POINTS = 41
"""Of the grid in each direction."""
UNSAFE_PERCENTILE = 95.0
"""Energies above it are drawn as unsafe (the paper's red lines)."""
MARGIN = 0.3
"""[m] around the objects of a Safety-Gymnasium task."""
ITEM_RADIUS = 0.02
"""[m] with which SafeReach's objects are drawn."""
PLAIN, ALIGNED, HAZARD, GOAL = "#c2402c", "#1a7f5a", "#7a4ea3", "#2f6db5"


class Disc(NamedTuple):
    """A thing on the ground [m]."""

    x: float
    y: float
    radius: float
    colour: str


class View(Protocol):
    """A task from above. low, high: (2,) corners of the map [m]."""

    low: np.ndarray
    high: np.ndarray

    def discs(self) -> list[Disc]: ...

    def position(self) -> np.ndarray:
        """(2,) of the robot [m]."""
        ...

    def observations(self, points: np.ndarray) -> np.ndarray:
        """(N, size): what the robot would see at (N, 2) points, everything else as at the start."""
        ...


class GoalView:
    """Safety-Gymnasium's tasks with a goal and hazards, after a reset."""

    def __init__(self, env: SafetyGymnasiumEnv) -> None:
        self._task = env.simulation.task
        if not (hasattr(self._task, "goal") and hasattr(self._task, "hazards")):
            raise ConfigurationError(f"landscape: {env.env_id} has no goal and hazards to draw")
        places = np.array([*(disc[:2] for disc in self.discs()), self.position()])
        self.low, self.high = places.min(0) - MARGIN, places.max(0) + MARGIN

    def discs(self) -> list[Disc]:
        hazards = [Disc(*place[:2], self._task.hazards.size, HAZARD) for place in self._task.hazards.pos]
        return [*hazards, Disc(*self._task.goal.pos[:2], self._task.goal.size, GOAL)]

    def position(self) -> np.ndarray:
        return np.array(self._task.agent.pos[:2])

    def observations(self, points: np.ndarray) -> np.ndarray:
        # Moving the body's place in the model moves the robot, whatever joints it has.
        place, offset = self._task.model.body("agent").pos, self.position()
        start = place.copy()
        found = []
        for point in points:
            place[:2] = start[:2] + point - offset
            found.append(self._task.obs())
        place[:] = start
        self._task.obs()
        return np.array(found, np.float32)


class ReachView:
    """SafeReach's table, after a reset."""

    def __init__(self, env: StateReachEnv, first: np.ndarray) -> None:
        self._env, self._first = env, first
        self.low, self.high = (np.array(corner[:2]) for corner in
                               (MOTION_LIMITS.workspace_low, MOTION_LIMITS.workspace_high))

    def discs(self) -> list[Disc]:
        layout = self._env.layout
        things = [*((item, HAZARD) for item in layout.obstacles), *([(layout.target, GOAL)] if layout.target else [])]
        return [Disc(item.x, item.y, ITEM_RADIUS, colour) for item, colour in things]

    def position(self) -> np.ndarray:
        return self._env.pose[:2].astype(float)

    def observations(self, points: np.ndarray) -> np.ndarray:
        found = np.tile(self._first, (len(points), 1))
        found[:, :2] = points  # the vector begins with the tool's place
        return found


def draw(checkpoint: Path, name: str, seed: int, out: Path) -> dict[str, Any]:
    """Draws one episode's map with the ways without and with alignment. Returns the file and both ways' costs."""
    aligned = load_policy(checkpoint)
    if not isinstance(aligned, SasPolicy):
        raise ConfigurationError(f"landscape: expected a checkpoint of sas, {checkpoint} is of "
                                 f"{read_manifest(checkpoint)['method']!r}")
    env = find_task(name).make_env()
    try:
        observation, _ = env.reset(seed)
        view = ReachView(env, observation["vector"]) if isinstance(env, StateReachEnv) else GoalView(env)  # type: ignore[arg-type]
        axes = [np.linspace(view.low[index], view.high[index], POINTS) for index in (0, 1)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        aligned.reset(seed)
        found = landscape(aligned, observation["vector"], view.observations(points), seed)
        discs = view.discs()
        ways = {label: _way(env, policy, view, seed) for label, policy in
                (("without alignment", aligned.base), ("with alignment", aligned))}
    finally:
        env.close()
    energy = found.energy.reshape(POINTS, POINTS)
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for panel, values, title in ((panels[0], -energy, "log density of the data"), (panels[1], found.lyapunov.reshape(
            energy.shape), "G: peak energy of the best imagined course less the energy")):
        picture = panel.pcolormesh(*axes, values.T, shading="gouraud", cmap="viridis")
        figure.colorbar(picture, ax=panel)
        for disc in discs:
            panel.add_patch(plt.Circle(disc[:2], disc.radius, fill=False, color=disc.colour, lw=1.5))
        panel.set(title=title, xlabel="x [m]", ylabel="y [m]", aspect="equal")
    if energy.min() < found.peak < energy.max():
        panels[1].contour(*axes, energy.T, [found.peak], colors="#2b7bff", linestyles="dotted")
    panels[1].contour(*axes, energy.T, [np.percentile(energy, UNSAFE_PERCENTILE)], colors="red", linewidths=0.8)
    for (label, (way, cost)), colour in zip(ways.items(), (PLAIN, ALIGNED), strict=True):
        panels[1].plot(*way.T, color=colour, lw=1.4, label=f"{label}, cost {cost:g}")
    panels[1].legend(fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    plt.close(figure)
    return {"landscape": str(out), "task": name, "seed": seed, "checkpoint": str(find_checkpoint(checkpoint)),
            **{f"cost {label}": cost for label, (_, cost) in ways.items()}}


def _way(env: RobotEnv, policy: Policy, view: View, seed: int) -> tuple[np.ndarray, float]:
    """Where the robot went (T, 2), and what it cost."""
    places: list[np.ndarray] = []
    result = rollout(env, policy, seed, on_step=lambda _: places.append(view.position()))
    return np.array(places), result.cost
