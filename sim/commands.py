"""`safe-policy collect` and `safe-policy replay`."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from safe_policy_core.errors import ConfigurationError
from sim.safe_reach.demonstrators import PAPER_COUNTS, share_counts
from sim.safe_reach.task import IMAGE_SIZE, check_task

os.environ.setdefault("MUJOCO_GL", "egl")


@dataclass
class Collect:
    """Records demonstrations of a SafeReach task: from the fast simulator, or teleoperated over the ROS graph."""

    task: tyro.conf.Positional[str]
    """original, obstacle_shape, target_shape, more_obstacles or random_layout."""

    out: Path
    """Folder for the episode files. Files that are there already are kept and counted as done."""

    episodes: int = 200
    """Number of episodes; in the simulator shared 12 : 3 : 4 : 1 among the paper's four behaviours."""

    behavior: Literal["mixed", "safe_reach", "safe_no_reach", "contact_reach", "contact_no_reach"] = "mixed"
    """Simulator: record only one behaviour."""

    seed: int = 0
    """Other seeds give other scenes and other people."""

    env: Literal["direct", "ros"] = "direct"
    """direct: faster than real time. ros: through the running ROS graph, in real time."""

    operator: str = "scripted"
    """ROS: who teleoperates, "scripted" or a person's name."""

    arm: bool = False
    """ROS: arm the safety gate first; without it somebody else must."""

    workers: int = 2
    """Simulator: processes."""

    image_size: int = IMAGE_SIZE
    """Simulator: height and width of the pictures [pixels]."""

    def run(self) -> dict[str, Any]:
        """Records. Returns the files and counts. Raises `ConfigurationError` for an unknown task or bad number."""
        check_task(self.task)
        for name in ("episodes", "workers"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigurationError(f"seed: expected 0 or more, got {self.seed}")
        if self.env == "ros":
            # By name: sim does not depend on the ROS packages, which only exist where the workspace is built.
            over_ros = importlib.import_module("safe_policy_ros.commands").collect_over_ros
            return over_ros(self.task, self.episodes, self.out, seed=self.seed, operator=self.operator, arm=self.arm)
        return self._collect_direct()

    def _collect_direct(self) -> dict[str, Any]:
        from sim.safe_reach.collection import Job, run_jobs

        counts = share_counts(self.episodes) if self.behavior == "mixed" else {self.behavior: self.episodes}
        behaviors = [name for name in PAPER_COUNTS for _ in range(counts.get(name, 0))]
        jobs = [Job(self.out / f"{self.task}-{self.seed}-{index:04d}-{behavior}.h5", self.task, behavior, self.seed,
                    index, self.image_size) for index, behavior in enumerate(behaviors)]
        files = [job.path for job in jobs]
        missing = [job for job in jobs if not job.path.exists()]
        steps = 0
        if missing:
            for row in tqdm(run_jobs(missing, self.workers), total=len(missing), desc="collect", unit="episode",
                            disable=None):
                steps += row["steps"]
        return {"task": self.task, "out": str(self.out), "count": len(files), "recorded": len(missing),
                "steps_recorded": steps, "behaviors": {k: v for k, v in counts.items() if v},
                "episodes": [str(path) for path in files]}
