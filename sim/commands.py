"""`safe-policy collect` and `safe-policy replay`."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from safe_policy_core import replay_report
from safe_policy_core.environments import SAFETY_GYMNASIUM_TASKS, STATE_SUFFIX, VISION_SUFFIX
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError
from safe_policy_core.replay_report import ReplayGate
from sim.collectors.controller import NAVIGATION_BEHAVIOURS
from sim.safe_reach.demonstrators import PAPER_COUNTS, share_counts
from sim.safe_reach.task import IMAGE_SIZE, check_task

os.environ.setdefault("MUJOCO_GL", "egl")


@dataclass
class Collect:
    """Records demonstrations of a SafeReach task: from the fast simulator, or teleoperated over the ROS graph.

    Or of one of FOSP's Safety-Gymnasium tasks, seen as pictures (PointGoal1-vision) or by sensors (PointGoal1-state).

    With --trajectories: a DSRL-format dataset of a task of the offline benchmark, from scripted demonstrators of many
    degrees of skill and caution.
    """

    task: tyro.conf.Positional[str]
    """original, obstacle_shape, target_shape, more_obstacles or random_layout; or PointGoal1, PointButton1, PointPush1,
    PointGoal2, CarGoal2, FadingEasy1 or Race2, each with -vision or -state behind it; with --trajectories PointGoal1,
    PointCircle1, CarCircle1, CarCircle2, HalfCheetahVelocity, HopperVelocity, HumanoidVelocity, SwimmerVelocity,
    Walker2dVelocity or SafeReach, or an id: SafetyPointGoal1Gymnasium-v0."""

    out: Path
    """Folder for the episode files. Files that are there already are kept and counted as done. With --trajectories
    the file to write (.hdf5)."""

    trajectories: int | None = None
    """Episodes of a DSRL-format dataset, one after the other in this process."""

    episodes: int = 200
    """Number of episodes; in SafeReach's simulator shared 12 : 3 : 4 : 1 among the paper's four behaviours, in
    Safety-Gymnasium 1 : 1 : 1 among its three (the paper has 600 there)."""

    behavior: Literal["mixed", "safe_reach", "safe_no_reach", "contact_reach", "contact_no_reach", "random", "safe",
                      "unsafe"] = "mixed"
    """Simulator: record only one behaviour; the last three are Safety-Gymnasium's."""

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
        if self.trajectories is not None:
            return self._collect_dsrl(self.trajectories)
        navigates = self.task.endswith((VISION_SUFFIX, STATE_SUFFIX)) and \
            self.task.rpartition("-")[0] in SAFETY_GYMNASIUM_TASKS
        if not navigates:
            check_task(self.task)
        if self.behavior not in ("mixed", *(NAVIGATION_BEHAVIOURS if navigates else PAPER_COUNTS)):
            raise ConfigurationError(f"behavior: {self.task} has no {self.behavior!r}")
        for name in ("episodes", "workers"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigurationError(f"seed: expected 0 or more, got {self.seed}")
        if self.env == "ros":
            # By name: sim does not depend on the ROS packages, which only exist where the workspace is built.
            over_ros = importlib.import_module("safe_policy_ros.commands").collect_over_ros
            return over_ros(self.task, self.episodes, self.out, seed=self.seed, operator=self.operator, arm=self.arm)
        return self._collect_navigation() if navigates else self._collect_direct()

    def _collect_navigation(self) -> dict[str, Any]:
        from sim.collectors.episodes import jobs, record

        wanted = jobs(self.task, self.episodes, self.behavior, self.seed, self.out)
        missing = [job for job in wanted if not job.path.exists()]
        rows = list(tqdm(record(missing), total=len(missing), desc="collect", unit="episode", disable=None))
        return {"task": self.task, "out": str(self.out), "count": len(wanted), "recorded": len(missing),
                "steps_recorded": sum(row["steps"] for row in rows),
                "behaviors": dict(Counter(job.behaviour for job in wanted)),
                "episodes": [str(job.path) for job in wanted]}

    def _collect_dsrl(self, trajectories: int) -> dict[str, Any]:
        from sim.collectors.collect import SEED_STRIDE, collect, command_of, summary
        from sim.collectors.tasks import find_task

        task = find_task(self.task)
        if not 1 <= trajectories <= SEED_STRIDE:
            raise ConfigurationError(f"trajectories: expected 1 to {SEED_STRIDE}, got {trajectories}")
        if self.seed < 0:
            raise ConfigurationError(f"seed: expected 0 or more, got {self.seed}")
        if self.out.exists():
            raise ConfigurationError(f"out: {self.out} exists; name another file")
        progress = tqdm(range(trajectories), desc="collect", unit="episode", disable=None)
        dataset = collect(task, trajectories, self.seed, self.out,
                          command_of(self.task, trajectories, self.seed, self.out), progress)
        return {"task": task.name, "out": str(self.out), **summary(dataset)}

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


@dataclass
class Replay:
    """Runs recorded episodes or a policy again in the fast simulator, with a video."""

    input: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Recorded episodes (*.h5), or folders of them: their executed actions run again in the same scene."""

    policy: Path | None = None
    """Checkpoint folder: the policy runs in seeded episodes."""

    task: str = "original"
    """Policy: the task."""

    episodes: int = 110
    """Policy: number of episodes. The gate passes 72 without a violation, or 110 with one (at its default bound)."""

    seed: int = 0
    """Policy: the episodes have this seed and the following ones."""

    video: Path | None = None
    """Write a video (MP4): recorded and replayed pictures side by side above the distance between the two tools,
    then the policy's first episodes."""

    gate: Path | None = None
    """Judge a policy by its report (replay.json, or the checkpoint's folder that holds it): exit code 1 unless exactly
    these weights passed in `--task`. Nothing runs again, unless `--policy` is named too."""

    max_violation_rate: float = ReplayGate.max_violation_rate
    """Gate: the upper end of the violation rate's exact 95% interval must be under it."""

    min_success_rate: float = ReplayGate.min_success_rate
    """Gate: share of episodes in which the target was reached."""

    device: str = "cpu"
    """Policy: torch device."""

    def run(self) -> dict[str, Any]:
        """Replays. Returns pose errors and agreement of each episode, the policy's summary, and the gate's word."""
        rule = ReplayGate(self.max_violation_rate, self.min_success_rate)
        if not self.input and self.policy is None:
            if self.gate is None:
                raise ConfigurationError("replay: name recorded episodes, a checkpoint with --policy, or a report with "
                                         "--gate")
            check_task(self.task)
            return self._judge(rule)
        result = self._replay(rule)
        return result if self.gate is None else result | self._judge(rule)

    def _replay(self, rule: ReplayGate) -> dict[str, Any]:
        from sim.safe_reach.replay import ReplayReport

        if self.episodes < 1:
            raise ConfigurationError(f"episodes: expected at least 1, got {self.episodes}")
        check_task(self.task)
        files = [file for path in self.input for file in _episode_files(path)]
        report = ReplayReport(record_video=self.video is not None)
        for file in tqdm(files, desc="replay", unit="episode", disable=None):
            report.add_episode(file)
        if self.policy is not None:
            seeds = range(self.seed, self.seed + self.episodes)
            report.add_policy(self.policy, self.task, seeds, self.device)
        result = report.summary()
        if self.policy is not None:
            # Beside the weights: without it they do not come near a real arm (safe-policy preflight).
            result["report"] = str(replay_report.write(self.policy, self.task, seeds, result["policy"]))
            result["report_problem"] = replay_report.problem(self.policy, self.task, gate=rule)
        if self.video is not None:
            result["video"] = str(report.write_video(self.video))
        return result

    def _judge(self, rule: ReplayGate) -> dict[str, Any]:
        assert self.gate is not None
        folder = self.gate.parent if self.gate.name == replay_report.REPORT else self.gate
        problem = replay_report.problem(folder, self.task, gate=rule)
        row = {} if problem and not _has_row(folder, self.task) else replay_report.read(folder)["tasks"][self.task]
        return {"gate": {"passed": not problem, "problem": problem, "task": self.task, "checkpoint": str(folder),
                         "max_violation_rate": rule.max_violation_rate, "min_success_rate": rule.min_success_rate,
                         **({"violation_upper_bound": replay_report.upper_bound(row)} | row if row else {})},
                "_exit_code": 1 if problem else 0}


def _has_row(checkpoint: Path, task: str) -> bool:
    try:
        return task in replay_report.read(checkpoint)["tasks"]
    except CheckpointError:
        return False


def _episode_files(path: Path) -> list[Path]:
    """The episode files at a path. Raises `DatasetError` where there are none."""
    if not path.exists():
        raise DatasetError(f"{path}: no such episode file or folder")
    files = sorted(path.rglob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"{path}: no episode files (*.h5) in this folder")
    return files
