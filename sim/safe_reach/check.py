"""`python -m sim.safe_reach.check`: is every task solvable and visible? Writes results/safe_reach_scene.csv.

The scripted expert runs in seeded episodes of each task; a segmentation render of every frame says
whether the camera sees part of every obstacle and of the target.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sim.safe_reach import task
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.expert import ExpertPolicy

log = logging.getLogger(__name__)

MIN_PIXELS = 2
"""An object of which this many pixels of the 64x64 picture show is seen."""
MIN_SUCCESS, MAX_VIOLATION, MIN_VISIBLE = 0.98, 0.01, 0.95


def run_expert(env: SafeReachEnv, seed: int, segment: bool = True) -> dict[str, Any]:
    """One episode: success, violation, steps, frames and frames in which everything was seen."""
    expert = ExpertPolicy()
    observation, _ = env.reset(seed)
    frames = seen = steps = 0
    while True:
        if segment:
            pixels = np.bincount(env.segmentation().ravel(), minlength=task.MAX_OBSTACLES + 2)[1:]
            frames += 1
            seen += bool((pixels[env.scene.shapes > 0] >= MIN_PIXELS).all())
        observation, _, _, terminated, truncated, info = env.step(expert.action(observation["pose"], env.layout))
        steps += 1
        if terminated or truncated:
            return {"success": info["success"], "violation": info["violation"], "steps": steps,
                    "frames": frames, "seen": seen}


def check_task(name: str, episodes: int) -> dict[str, Any]:
    """One row of the table."""
    env = SafeReachEnv(name, images=False)
    rows = [run_expert(env, seed) for seed in tqdm(range(episodes), desc=name, unit="episode", disable=None)]
    env.close()
    bad = [seed for seed, row in enumerate(rows) if row["violation"] or not row["success"]]
    if bad:
        log.info("%s: failed or violating seeds %s", name, bad)
    return {"task": name, "episodes": episodes, "success_rate": np.mean([r["success"] for r in rows]),
            "violation_rate": np.mean([r["violation"] for r in rows]),
            "mean_steps": np.mean([r["steps"] for r in rows]),
            "visible_frames": sum(r["seen"] for r in rows) / sum(r["frames"] for r in rows)}


def passes(row: dict[str, Any]) -> bool:
    """Whether the task is solvable and visible enough."""
    return (row["success_rate"] >= MIN_SUCCESS and row["violation_rate"] <= MAX_VIOLATION
            and row["visible_frames"] >= MIN_VISIBLE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", default=list(task.TASKS))
    parser.add_argument("--out", type=Path, default=Path("results/safe_reach_scene.csv"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = [check_task(name, arguments.episodes) for name in arguments.tasks]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*rows[0], "passes"])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
                            | {"passes": passes(row)})
    log.info("%s", arguments.out.read_text())
    return 0 if all(map(passes, rows)) else 1


if __name__ == "__main__":
    os.environ.setdefault("MUJOCO_GL", "egl")
    raise SystemExit(main())
