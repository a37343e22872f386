"""Generated SafeReach trajectories, looked at and checked: their actions are played in the simulator.

`safe-policy report RUN --generated SPLIT` draws them and films them. Each is started in the scene that its own first
states show. The distance between where the diffusion says the tool is and where its actions take it tells how well the
dynamics were learned; recorded ones are played beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image
from tqdm import tqdm

from safe_policy_core.checkpoint import RUN_FOLDER
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.split_safe import read_split
from safe_policy_core.errors import DatasetError
from safe_policy_core.geometry import Pose
from safe_policy_core.methods.dspo.diffusion_stage import DiffusionStage
from safe_policy_core.methods.dspo.pipeline import GENERATED, read_generated
from safe_policy_core.safety.motion import CONTROL_PERIOD
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.task import MAX_OBSTACLES, NOMINAL_QUATERNION, VECTOR_SPEC, Item, Layout

PLAYED, SHOWN = 20, 6
"""Trajectories of each kind that are played; generated ones that are drawn and filmed."""
IMAGE_SIZE = (240, 320)
"""Of the film [pixels]."""
_POSE = 6
_TARGET = _POSE + 4 * MAX_OBSTACLES


@dataclass(frozen=True)
class Played:
    """states: (T, 25), what was to be seen. tool: (T, 3) [m], where the actions took it. cost, reward: sums.
    frames: (T + 1, height, width, 3) uint8 or a few less, with the tool where it got to; () without pictures."""

    states: np.ndarray
    tool: np.ndarray
    cost: float
    reward: float
    frames: tuple[np.ndarray, ...] = ()

    @property
    def error(self) -> np.ndarray:
        """(T,) [m] between the two."""
        return np.linalg.norm(self.tool - self.states[:, :3], axis=1)


def draw(run: Path, split: Path, out: Path) -> dict[str, Any]:
    """Plays what a DSPO run generated, and the demonstrations of its split beside it; writes the picture `out` and a
    film of the same name (.gif).

    Returns both files, and of both kinds the errors in metres and the shares of collisions and of reached targets.
    Raises `DatasetError` for a task other than SafeReach with state observations, or when nothing was generated.
    """
    parts = read_split(split)
    if not isinstance(parts.safe, DsrlDataset) or parts.safe.observations.shape[1:] != VECTOR_SPEC.shape:
        raise DatasetError(f"{split}: expected SafeReach with state observations of {VECTOR_SPEC.shape[0]} "
                           "numbers, as the benchmark's dataset SafeReach has")
    if not (run / GENERATED).exists():
        raise DatasetError(f"{run}: no generated trajectories; run `safe-policy dspo generate` or `pretrain dspo` with "
                           "diffusion.generated above 0")
    stage = DiffusionStage.restored(run / "diffusion" / RUN_FOLDER)
    generated, _ = read_generated(run / GENERATED)
    states = next(iter(stage.features.vector_parts(generated.states).values()))
    made = [(rows[mask], actions[mask]) for rows, actions, mask in
            zip(states, generated.actions, generated.mask, strict=True)][:PLAYED]
    data = parts.safe
    recorded = [(data.observations[begin:end], data.actions[begin:end]) for begin, end in
                zip(data.starts[:-1], data.starts[1:], strict=True)][:PLAYED]
    filmed = _play_all(made[:SHOWN], "generated, filmed", images=True)
    played = {"generated": filmed + _play_all(made[SHOWN:], "generated"), "recorded": _play_all(recorded, "recorded")}
    _draw(filmed, out)
    film = out.with_suffix(".gif")
    frames = [Image.fromarray(frame) for result in filmed for frame in result.frames]
    frames[0].save(film, save_all=True, append_images=frames[1:], duration=round(1e3 * CONTROL_PERIOD), loop=0)
    return {"picture": str(out), "film": str(film), **{name: summary(results) for name, results in played.items()}}


def _play_all(trajectories: list[tuple[np.ndarray, np.ndarray]], what: str, images: bool = False) -> list[Played]:
    env = SafeReachEnv("original", images, IMAGE_SIZE)
    try:
        return [play(env, *pair) for pair in tqdm(trajectories, desc=what, unit="trajectory")]
    finally:
        env.close()


def _draw(played: list[Played], out: Path) -> None:
    figure = Figure(figsize=(12, 8), layout="constrained")
    for ax, result in zip(figure.subplots(2, 3).flat, played, strict=False):
        layout = layout_of(result.states)
        for item in layout.obstacles:
            ax.add_patch(Rectangle((item.x - 0.015, item.y - 0.015), 0.03, 0.03, color="tab:green"))
        if layout.target is not None:
            ax.add_patch(Circle((layout.target.x, layout.target.y), 0.018, color="tab:red"))
        ax.plot(*result.states[:, :2].T, ".-", color="black", label="generated")
        ax.plot(*result.tool[:, :2].T, "--", color="tab:blue", label="its actions in the simulator")
        happened = [f"mean error {1e3 * result.error.mean():.0f} mm", *(["touched"] if result.cost > 0 else []),
                    *(["reached"] if result.reward > 0 else [])]
        ax.set(aspect="equal", xlim=(0.36, 0.64), ylim=(-0.14, 0.14), xlabel="x [m]", ylabel="y [m]",
               title=", ".join(happened))
    figure.axes[0].legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)


def layout_of(states: np.ndarray) -> Layout:
    """The scene in which (T, 25) states were seen: the median over them; boxes stand straight."""
    middle = np.median(states, 0)
    there = [row for row in middle[_POSE:_TARGET].reshape(MAX_OBSTACLES, 4) if row[3] > 0.5]
    return Layout(tuple(Item("box", float(row[0]), float(row[1])) for row in there),
                  Item("cylinder", float(middle[_TARGET]), float(middle[_TARGET + 1])))


def play(env: SafeReachEnv, states: np.ndarray, actions: np.ndarray) -> Played:
    """(T, 25) states, (T, 6) actions, from the first state's pose in the scene that the states show.

    All actions are played, the last too, with which the reward for reaching comes; of where it leads nothing is known.
    """
    observation, _ = env.start(layout_of(states), 0, Pose.from_vector(states[0, :_POSE], np.array(NOMINAL_QUATERNION)))
    tool, frames, cost, reward = [observation["pose"][:3]], [observation.get("image")], 0.0, 0.0
    for action in actions:
        observation, gained, lost, terminated, truncated, _ = env.step(np.clip(action, -1, 1).astype(np.float32))
        tool.append(observation["pose"][:3])
        frames.append(observation.get("image"))
        cost, reward = cost + lost, reward + gained
        if terminated or truncated:
            break
    return Played(states[:len(tool)], np.array(tool[:len(states)]), cost, reward,
                  tuple(frame for frame in frames if frame is not None))


def summary(played: list[Played]) -> dict[str, float]:
    """Means over trajectories; errors in metres."""
    return {"trajectories": len(played), "mean_error": float(np.mean([result.error.mean() for result in played])),
            "final_error": float(np.mean([result.error[-1] for result in played])),
            "collided": float(np.mean([result.cost > 0 for result in played])),
            "reached": float(np.mean([result.reward > 0 for result in played]))}
