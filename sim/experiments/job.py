"""One trained and tested policy: the unit that runs in a process, here or on another machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from safe_policy_core.checkpoint import RUN_FOLDER
from safe_policy_core.commands import sequence_sizes
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.dsrl_tasks import normalized_cost, normalized_reward
from safe_policy_core.evaluation import rollout
from safe_policy_core.interfaces import TakesTargets
from safe_policy_core.methods.overrides import override, preset
from safe_policy_core.methods.registry import METHODS, config_module, learner_class, make_learner
from safe_policy_core.targets import set_target_cost
from safe_policy_core.training.offline import train_offline
from safe_policy_core.training.steps import LearnsFromDsrl, Precision
from sim.collectors.tasks import find_task
from sim.experiments.rows import Row
from sim.experiments.validation import FIRST_TEST_SEED, ask_safely

os.environ.setdefault("MUJOCO_GL", "egl")

LIMIT_FIELDS = ("target_cost", "cost_limit")
"""By these names a method's configuration takes the cost that an episode may have."""


@dataclass(frozen=True)
class Job:
    """method: its name, with ":PRESET" behind it for another preset than "small". dataset: a benchmark task's name.

    steps: gradient steps. batch: sequences or steps of a batch, None for the method's own. episodes: of the test.
    out: folder in which training is checkpointed and resumed. settings: see `configuration`.
    tested_cost: another cost to allow in the test, without training for it (zero-shot); None: target_cost.
    validation: episodes, with seeds from 0 on, on which a policy that takes targets finds what it may ask for; 0: it
    asks for what its configuration says. Tests have seeds from 0 on too, or from `FIRST_TEST_SEED` after a validation.
    precision: of the training's matrix products.
    """

    method: str
    dataset: str
    seed: int
    target_cost: float
    steps: int
    episodes: int
    out: Path
    batch: int | None = None
    device: str = "cpu"
    settings: tuple[str, ...] = ()
    tested_cost: float | None = None
    validation: int = 0
    precision: Precision = "float32"

    @property
    def limit(self) -> float:
        """What the cost of the test episodes is compared with."""
        return self.target_cost if self.tested_cost is None else self.tested_cost

    @property
    def key(self) -> tuple[str, str, int, float]:
        """As `Row.key`."""
        return self.method, self.dataset, self.seed, self.limit


def dsrl_methods() -> list[str]:
    """Every registered method that learns from DSRL files, with the presets that its config names for experiments."""
    found = []
    for name in METHODS:
        learner = learner_class(name)
        if issubclass(learner, LearnsFromDsrl):
            found += [name if chosen == "small" else f"{name}:{chosen}"
                      for chosen in getattr(config_module(name), "EXPERIMENT_PRESETS", ("small",))]
    return found


def configuration(method: str, target_cost: float, settings: Sequence[str] = ()) -> Any:
    """A method's preset with the cost limit in it, where it has one, and with the settings that concern it.

    settings: "NAME=value" for every method that has a setting NAME, "METHOD.NAME=value" for one alone. Raises
    `ConfigurationError`.
    """
    name, _, chosen = method.partition(":")
    config = preset(name, chosen or "small")
    config = override(config, [setting.removeprefix(f"{name}.") for setting in settings if concerns(setting, method)])
    return dataclasses.replace(config, **{field: target_cost for field in LIMIT_FIELDS if hasattr(config, field)})


def concerns(setting: str, method: str) -> bool:
    """Whether "NAME=value" or "METHOD.NAME=value" is for this method."""
    owner, dot, field = setting.partition("=")[0].rpartition(".")
    name = method.partition(":")[0]
    return owner == name if dot else field in learner_class(name).config_class.__dataclass_fields__


@dataclass(frozen=True)
class Failure:
    """A job that ended without a row, and why."""

    job: Job
    message: str


def attempt(job: Job, dataset: DsrlDataset, progress: bool = False) -> Row | Failure:
    """`run_job`, whose error does not end the other jobs of an experiment: what failed is tried again the next time."""
    try:
        return run_job(job, dataset, progress)
    except Exception as error:
        return Failure(job, f"{type(error).__name__}: {error}")


def run_job(job: Job, dataset: DsrlDataset, progress: bool = False) -> Row:
    """Trains on the dataset, then runs the test episodes in its environment. The same job gives the same row on a CPU.

    A killed job goes on at its last checkpoint. progress: a bar of the training on stderr.
    """
    torch.set_num_threads(1)
    name = job.method.partition(":")[0]
    config = configuration(job.method, job.target_cost, job.settings)
    learner = make_learner(name, dataset.specs, config, job.seed, job.device)
    batch, length = sequence_sizes(name, job.batch, None)
    folder = job.out / f"{job.method.replace(':', '-')}-{job.dataset}-{job.seed}-{job.target_cost:g}-{job.steps}"
    train_offline(learner, dataset, job.steps, batch, length, job.seed, folder / RUN_FOLDER, folder / "metrics.jsonl",
                  resume=True, progress=progress, checkpoint_every=max(500, job.steps // 10), precision=job.precision)
    env, policy = find_task(job.dataset).make_env(), learner.policy()
    set_target_cost(policy, job.tested_cost)
    first = FIRST_TEST_SEED if job.validation else 0
    try:
        if job.validation and isinstance(policy, TakesTargets):
            ask_safely(policy, env, dataset, job.limit, range(job.validation), folder / f"asked_{job.limit:g}.json")
        results = [rollout(env, policy, seed) for seed in range(first, first + job.episodes)]
    finally:
        env.close()
    reward, cost = np.mean([[result.reward, result.cost] for result in results], 0)
    low, high = float(dataset.returns.min()), float(dataset.returns.max())
    return Row(job.method, job.dataset, job.seed, job.limit, normalized_reward(float(reward), low, high),
               normalized_cost(float(cost), job.limit), job.episodes)
