"""What a SAS policy makes of a task seen from above: state density, G, region of attraction, ways (SAS Figure 3).

`safe-policy report DIR --landscape CHECKPOINT --landscape-task PointGoal1` draws it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
from safe_policy_core.methods.sas.landscape import Landscape, landscape
from safe_policy_core.methods.sas.policy import SasPolicy
from sim.collectors.tasks import find_task
from sim.safe_reach.state import StateReachEnv
from sim.safe_reach.task import MOTION_LIMITS
from sim.safety_gymnasium import SafetyGymnasiumEnv

POINTS = 41
"""Of the grid in each direction."""
UNSAFE_PERCENTILE = 95.0
"""Energies above that of so much of the map are drawn as unsafe (the paper's red lines, of G)."""
MARGIN = 0.3
"""[m] around the objects of a Safety-Gymnasium task."""
ITEM_RADIUS = 0.02
"""[m] with which SafeReach's objects are drawn."""
VASE_RADIUS = 0.1
"""[m] with which Safety-Gymnasium's vases, which are boxes, are drawn where they stand at first."""
PLAIN, ALIGNED, HAZARD, GOAL, VASE = "#ff922b", "#12f0a0", "#b197fc", "#ffffff", "#ffd43b"
REGION, UNSAFE = "#4dabf7", "#ff2020"
DENSITY_TITLE = "log density of the next states (no actions) [nats]"
LYAPUNOV_TITLE = "G: level of the best imagined course less energy [nats]"


class Disc(NamedTuple):
    """A thing on the ground [m]."""

    x: float
    y: float
    radius: float
    colour: str


class Way(NamedTuple):
    """places: (T, 2) of the robot [m]. goals: those after the first one. cost: of the episode."""

    places: np.ndarray
    goals: list[Disc]
    cost: float


class View(Protocol):
    """A task from above. low, high: (2,) corners [m] of what the map shows at least."""

    low: np.ndarray
    high: np.ndarray

    def discs(self) -> list[Disc]:
        """Goals, then everything else, as they are now."""
        ...

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
        task = self._task
        vases = task.vases.pos if hasattr(task, "vases") else []
        return [Disc(*task.goal.pos[:2], task.goal.size, GOAL),
                *(Disc(*place[:2], task.hazards.size, HAZARD) for place in task.hazards.pos),
                *(Disc(*place[:2], VASE_RADIUS, VASE) for place in vases)]

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
        things = [*([(layout.target, GOAL)] if layout.target else []), *((item, HAZARD) for item in layout.obstacles)]
        return [Disc(item.x, item.y, ITEM_RADIUS, colour) for item, colour in things]

    def position(self) -> np.ndarray:
        return self._env.pose[:2].astype(float)

    def observations(self, points: np.ndarray) -> np.ndarray:
        found = np.tile(self._first, (len(points), 1))
        found[:, :2] = points  # the vector begins with the tool's place
        return found


def draw(checkpoint: Path, name: str, seed: int, out: Path) -> dict[str, Any]:
    """Draws one episode's map with the ways without and with alignment. Returns the file and both ways' costs.

    Raises `ConfigurationError` for a checkpoint of another method or task, and for a task without a map.
    """
    aligned = load_policy(checkpoint)
    if not isinstance(aligned, SasPolicy):
        raise ConfigurationError(f"landscape: expected a checkpoint of sas, {checkpoint} is of "
                                 f"{read_manifest(checkpoint)['method']!r}")
    env = find_task(name).make_env()
    try:
        if difference := env.specs.difference(aligned.specs):
            raise ConfigurationError(f"landscape_task: {name} does not fit {checkpoint}: {difference} (task against "
                                     "checkpoint)")
        ways = {label: _way(env, policy, seed) for label, policy in
                (("without alignment", aligned.base), ("with alignment", aligned))}
        observation, _ = env.reset(seed)
        view = _view(env, observation["vector"])
        axes = _axes(view, ways.values())
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
        aligned.reset(seed)
        found = landscape(aligned, observation["vector"], view.observations(points), seed)
        discs = view.discs()
    finally:
        env.close()
    region = _draw(found, axes, discs, ways, f"{name}, seed {seed}", out)
    return {"landscape": str(out), "task": name, "seed": seed, "checkpoint": str(find_checkpoint(checkpoint)),
            "region of attraction": region, **{f"cost {label}": way.cost for label, way in ways.items()}}


def _view(env: RobotEnv, first: np.ndarray) -> View:
    """first: the observation after the reset."""
    if isinstance(env, StateReachEnv):
        return ReachView(env, first)
    if isinstance(env, SafetyGymnasiumEnv):
        return GoalView(env)
    raise ConfigurationError(f"landscape_task: expected SafeReach or PointGoal1, got a {type(env).__name__}")


def _way(env: RobotEnv, policy: Policy, seed: int) -> Way:
    """Where the robot went, to which goals."""
    places: list[np.ndarray] = []
    seen: list[list[Disc]] = []
    view: View | None = None

    def see(_: dict[str, Any]) -> None:
        nonlocal view
        view = view or _view(env, np.zeros(0))  # not before the reset
        places.append(view.position())
        seen.append(view.discs())

    result = rollout(env, policy, seed, on_step=see)
    return Way(np.array(places), later_goals(seen), result.cost)


def later_goals(seen: Sequence[Sequence[Disc]]) -> list[Disc]:
    """Each once and in their order, of what was there after each step; without the first."""
    return list(dict.fromkeys(disc for discs in seen for disc in discs if disc.colour == GOAL))[1:]


def _axes(view: View, ways: Iterable[Way]) -> list[np.ndarray]:
    """x and y of the grid: all that is there at first, all ways and all goals are on it."""
    places = np.concatenate([part for way in ways for part in (way.places, [goal[:2] for goal in way.goals])
                             if len(part)])
    margin = max(disc.radius for disc in view.discs())
    low, high = np.minimum(view.low, places.min(0) - margin), np.maximum(view.high, places.max(0) + margin)
    return [np.linspace(low[index], high[index], POINTS) for index in (0, 1)]


def _draw(found: Landscape, axes: list[np.ndarray], discs: list[Disc], ways: dict[str, Way], name: str, out: Path
          ) -> str:
    """The picture. Returns how much of the map is in the region of attraction, in words."""
    density, energy, lyapunov = (values.reshape(POINTS, POINTS).T for values in
                                 (found.density, found.energy, found.lyapunov))
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    figure.suptitle(name)
    for panel, values, title in zip(panels, (density, lyapunov), (DENSITY_TITLE, LYAPUNOV_TITLE), strict=True):
        # Single places far from everything would take up the colours.
        picture = panel.pcolormesh(*axes, values, shading="gouraud", cmap="viridis", vmin=np.percentile(values, 1))
        figure.colorbar(picture, ax=panel, shrink=0.8, extend="min")
        for disc in discs:
            panel.add_patch(plt.Circle(disc[:2], disc.radius, fill=False, color=disc.colour, lw=1.8))
        panel.set(xlabel="x [m]", ylabel="y [m]", aspect="equal", xlim=axes[0][[0, -1]], ylim=axes[1][[0, -1]])
        panel.set_title(title, fontsize=11)
    region = _region(lyapunov)
    if 0 < (lyapunov >= 0).mean() < 1:
        panels[1].contour(*axes, lyapunov, [0.0], colors=REGION, linestyles="dotted", linewidths=2.0)
    unsafe = np.percentile(energy, UNSAFE_PERCENTILE)
    panels[1].contour(*axes, energy, [unsafe], colors=UNSAFE, linestyles="solid", linewidths=1.2)
    for way, colour in zip(ways.values(), (PLAIN, ALIGNED), strict=True):
        panels[1].plot(*way.places.T, color=colour, lw=1.6)
        for goal in way.goals:
            panels[1].add_patch(plt.Circle(goal[:2], goal.radius, fill=False, color=colour, ls="dashed"))
    handles = [*_lines(ways, region), *_markers(discs)]
    figure.legend(handles=handles, fontsize=9, ncols=3, loc="outside lower center", facecolor="#9a9a9a")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=72)
    plt.close(figure)
    return region


def _region(lyapunov: np.ndarray) -> str:
    """How much of the map is inside, in words where no line can be drawn."""
    inside = float((lyapunov >= 0).mean())
    return {0.0: "nothing on this map", 1.0: "all of this map"}.get(inside, f"{inside:.0%} of this map")


def _lines(ways: dict[str, Way], region: str) -> list[Any]:
    """For the legend."""
    drawn = [(colour, "solid", f"{label}, cost {way.cost:g}{' (dashed: its later goals)' if way.goals else ''}")
             for (label, way), colour in zip(ways.items(), (PLAIN, ALIGNED), strict=True)]
    drawn += [(REGION, "dotted", f"region of attraction (G at least 0): {region}"),
              (UNSAFE, "solid", f"unsafe: energy above that of {UNSAFE_PERCENTILE:g}% of the map")]
    return [plt.Line2D([], [], color=colour, ls=style, label=label) for colour, style, label in drawn]


def _markers(discs: list[Disc]) -> list[Any]:
    """For the legend: the kinds of things that are there."""
    there = {disc.colour for disc in discs}
    return [plt.Line2D([], [], color=colour, marker="o", mfc="none", ls="", label=label)
            for colour, label in ((GOAL, "goal"), (HAZARD, "to avoid"), (VASE, "vase")) if colour in there]
