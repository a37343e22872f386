"""Records demonstrations with the direct environment, on several processes."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from safe_policy_core import __version__
from safe_policy_core.data.episodes import Episode, write_episode
from safe_policy_core.safety.motion import CONTROL_PERIOD
from sim.safe_reach import task
from sim.safe_reach.demonstrators import Demonstrator, behavior_of
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.scene import camera_projection

log = logging.getLogger(__name__)

SEED_BASE = 1_000_000
"""Demonstrations use seeds from here on; evaluations use small ones, so that no test scene was demonstrated."""
MAX_ATTEMPTS = 60
"""Tries, each in another scene, before a behaviour is given up as impossible."""
_DEMONSTRATOR_STREAM = 2


@dataclass(frozen=True)
class Job:
    """One demonstration to record: where to, which behaviour, and what its seeds derive from."""

    path: Path
    task: str
    behavior: str
    seed: int
    index: int
    image_size: int = task.IMAGE_SIZE


def record(env: SafeReachEnv, behavior: str, seed: int) -> Episode:
    """One episode of a demonstrator who tries to behave so. `metadata["behavior"]` says how it came out.

    The demonstrator is a person to the dataset: the action stands in `human_action`, `intervention` is set.
    """
    observation, info = env.reset(seed)
    demonstrator = Demonstrator(behavior, env.layout, observation["pose"],
                                task.episode_rng(seed, _DEMONSTRATOR_STREAM))
    observations, steps = [observation], []
    ended = False
    while not ended:
        action = demonstrator.action(observation["pose"])
        observation, reward, cost, terminated, truncated, step_info = env.step(action)
        observations.append(observation)
        steps.append((step_info["executed_action"], action, step_info["filter_reason"], reward, cost, terminated,
                      truncated))
        ended = terminated or truncated
    executed, requested, reasons, reward, cost, terminated, truncated = zip(*steps, strict=True)
    count = len(steps)
    metadata = {
        "task": env.task_name, "operator": "scripted", "source": "direct", "seed": seed,
        "behavior": behavior_of(step_info["success"], step_info["violation"]), "success": step_info["success"],
        "violation": step_info["violation"], "layout": info["layout"], "style": asdict(demonstrator.style),
        "specs": env.specs.to_json(),
        "calibration": {"projection": camera_projection(*env.specs.observation["image"].shape[:2]).row},
        "limits": asdict(task.MOTION_LIMITS), "dropped": {},
        "software": {"safe_policy": __version__, "mujoco": mujoco.__version__}}
    return Episode(
        observations={name: np.stack([o[name] for o in observations]) for name in observations[0]},
        executed_action=np.stack(executed), policy_action=np.zeros((count, 6), np.float32),
        human_action=np.stack(requested), intervention=np.ones(count, bool), filter_reason=list(reasons),
        reward=np.array(reward, np.float32), cost=np.array(cost, np.float32), terminated=np.array(terminated),
        truncated=np.array(truncated), time_ns=np.arange(count + 1) * round(CONTROL_PERIOD * 1e9), metadata=metadata)


def record_until(env: SafeReachEnv, behavior: str, seed: int, index: int) -> Episode:
    """Tries scene after scene until the behaviour comes out. Raises `RuntimeError` after `MAX_ATTEMPTS`."""
    for attempt in range(MAX_ATTEMPTS):
        episode = record(env, behavior, SEED_BASE + (seed * 100_000 + index) * MAX_ATTEMPTS + attempt)
        if episode.metadata["behavior"] == behavior:
            return episode
    raise RuntimeError(f"no {behavior} demonstration in {MAX_ATTEMPTS} attempts of task {env.task_name}")


_environments: dict[tuple[str, int], SafeReachEnv] = {}


def _run(job: Job) -> dict[str, Any]:
    """In a worker process, which keeps its environment from job to job."""
    key = (job.task, job.image_size)
    if key not in _environments:
        _environments[key] = SafeReachEnv(job.task, image_size=(job.image_size, job.image_size))
    episode = record_until(_environments[key], job.behavior, job.seed, job.index)
    write_episode(job.path, episode)
    return {"path": str(job.path), "behavior": job.behavior, "steps": len(episode), "seed": episode.metadata["seed"]}


def run_jobs(jobs: list[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Runs all jobs and yields what each recorded, as they finish. One worker runs in this process."""
    if workers <= 1:
        yield from map(_run, jobs)
        return
    context = multiprocessing.get_context("spawn")  # EGL does not survive a fork
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
