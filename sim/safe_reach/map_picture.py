"""What a FOSP policy takes SafeReach tables for: where it expects contacts and the target, and the way it then takes.

    python -m sim.safe_reach.map_picture CHECKPOINT --task more_obstacles --seeds 1000 1001 --out maps.png
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("MPLBACKEND", "Agg")
import matplotlib.pyplot as plt

from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_core.methods.fosp.policy import FospPolicy
from safe_policy_core.methods.registry import load_policy
from sim.safe_reach.environment import SafeReachEnv


@dataclass
class MapPicture:
    """Runs an episode per scene and draws the picture, the contact map, and the values with the tool's way."""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint folder of a FOSP policy with a table map."""
    task: str = "more_obstacles"
    seeds: tuple[int, ...] = (1000, 1001, 1002, 1003)
    out: Path = Path("runs/table_map.png")

    def run(self) -> None:
        """Raises `ConfigurationError` for a policy without a map."""
        policy, environment = load_policy(self.checkpoint), SafeReachEnv(self.task)
        if not isinstance(policy, FospPolicy):
            raise ConfigurationError(f"checkpoint: {self.checkpoint} is no FOSP policy")
        figure, axes = plt.subplots(3, len(self.seeds), figsize=(3 * len(self.seeds), 9), squeeze=False)
        for seed, column in zip(self.seeds, axes.T, strict=True):
            self._draw(policy, environment, seed, column)
        environment.close()
        figure.tight_layout()
        self.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out, dpi=70)

    def _draw(self, policy: FospPolicy, environment: SafeReachEnv, seed: int, column: np.ndarray) -> None:
        observation, _ = environment.reset(seed)
        policy.reset(seed)
        picture, way, ended, touched = observation["image"], [observation["pose"][:2]], False, False
        first = policy.act(observation, deterministic=True)
        if (solved := policy.solved) is None:
            raise ConfigurationError(f"checkpoint: {self.checkpoint} has no table map (preset tabletop has one)")
        contact, values = solved.contact, solved.values
        action, reward = first.action, 0.0
        while not ended:
            observation, reward, cost, terminated, truncated, info = environment.step(action)
            policy.observe_executed(info["executed_action"])
            way.append(observation["pose"][:2])
            ended, touched = terminated or truncated, touched or cost > 0
            if not ended:
                action = policy.act(observation, deterministic=True).action
        (left, bottom), (right, top) = solved.corners
        column[0].imshow(picture)
        column[0].set_title(f"seed {seed}: {'reached' if reward else 'not reached'}, "
                            f"{'touched' if touched else 'no contact'}", fontsize=9)
        for axis, table, name in zip(column[1:], (contact, values), ("contact probability", "reach-avoid value"),
                                     strict=True):
            axis.imshow(table, origin="lower", extent=(left, right, bottom, top), vmin=0, vmax=1)
            axis.set_title(name, fontsize=9)
            axis.plot(*zip(*[(item.x, item.y) for item in environment.layout.obstacles], strict=True), "rs", mfc="none")
            if target := environment.layout.target:
                axis.plot(target.x, target.y, "w*")
        column[2].plot(*np.array(way).T, "r.-")
        column[0].axis("off")


if __name__ == "__main__":
    try:
        tyro.cli(MapPicture, description=__doc__).run()
    except UserError as error:
        sys.stderr.write(f"map_picture: {error}\n")
        sys.exit(error.exit_code)
