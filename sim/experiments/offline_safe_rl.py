"""Every offline method on every dataset of the benchmark, with several seeds, in QPT's Table 1."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from safe_policy_core.commands import check_device, require_positive
from safe_policy_core.data.dsrl import DsrlDataset, read_dsrl
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.training.steps import Precision
from sim.collectors.collect import collect, command_of
from sim.collectors.tasks import BENCHMARK, TASKS
from sim.experiments.budget import Name, budget
from sim.experiments.job import Failure, Job, concerns, configuration, dsrl_methods
from sim.experiments.rows import Row, append, read_rows
from sim.experiments.table import table
from sim.experiments.workers import run_here, run_on_ray

log = logging.getLogger(__name__)

LEGEND = """Normalised reward / normalised cost, mean ± deviation over the seeds. **Bold**: safe, cost at most 1. A
star: the highest reward among the safe. Rewards 0 and 1 are the lowest and the highest return in each dataset, which
the project made itself: not DSRL's constants, so not to be compared with numbers on DSRL's files."""


def require_limit(name: str, value: float | None) -> None:
    """Raises `ConfigurationError` for a cost that no episode can be allowed; None is left to a default."""
    if value is not None and not 0 <= value < math.inf:
        raise ConfigurationError(f"{name}: expected a finite number of at least 0, got {value:g}")


@dataclass
class OfflineSafeRl:
    """Trains and tests every method on every dataset. Rows that are in the results already are not run again."""

    methods: tuple[str, ...] = ()
    """METHOD or METHOD:PRESET; by default every one that learns from DSRL files."""

    datasets: tuple[str, ...] = BENCHMARK
    """Of the benchmark."""

    seeds: tuple[int, ...] = (0, 1, 2)
    target_cost: float | None = None
    """Cost that an episode may have; by default each dataset's own: 10 as in QPT, 1 in SafeReach."""

    budget: Name = "cores"
    """Steps, batches and sizes of networks: for a few minutes of one core each, or as the papers have them. Rows do not
    say which: another budget belongs into another --out."""

    steps: int | None = None
    """Gradient steps of every training; by default the budget's."""

    batch: int | None = None
    """Of every training; by default the budget's."""

    set: tuple[str, ...] = ()
    """Settings: NAME=value for every method that has it, METHOD.NAME=value for one alone; over the budget's."""

    episodes: int = 20
    """Test episodes."""

    validation: int = 20_000
    """Steps, on other layouts than the test's, in which sequence models find the highest return that is safe to ask
    for, in whole episodes of the longest duration (PointGoal1 20, SafeReach 250); 0: they ask for `target_quantile`,
    and tests are on those layouts."""

    data: Path = Path("runs/benchmark")
    """Folder of the datasets, NAME.hdf5. A missing one is collected first."""

    trajectories: int | None = None
    """Of a dataset that is collected; by default 600, and 1200 of SafeReach, whose episodes are short."""

    out: Path = Path("results/offline_safe_rl.csv")
    """Results. The table goes beside it (.md)."""

    runs: Path = Path("runs/offline_safe_rl")
    """Folder of the trainings, so that a killed one goes on in the middle."""

    workers: int = 1
    """Processes; with --ray local, of the cluster."""

    ray: str | None = None
    """Address of a Ray cluster (HOST:PORT or auto), or local for one on this machine."""

    device: str = "cpu"
    """Torch device."""

    precision: Precision = "float32"
    """Of the training's matrix products. Rows do not say which: bfloat16 belongs into another --out and --runs."""

    def run(self) -> dict[str, Any]:
        """Runs what is missing. Returns the counts and the files."""
        if self.validation < 0:
            raise ConfigurationError(f"validation: expected at least 0 steps, got {self.validation}")
        require_limit("target_cost", self.target_cost)
        require_positive(steps=self.steps, episodes=self.episodes, workers=self.workers, batch=self.batch,
                         trajectories=self.trajectories)
        if unknown := [name for name in self.datasets if name not in TASKS]:
            raise ConfigurationError(f"datasets: unknown {unknown[0]!r}, expected some of {', '.join(TASKS)}")
        jobs = self._jobs()
        rows = read_rows(self.out)
        done = {row.key for row in rows}
        failed: list[Failure] = []
        missing = [job for job in jobs if job.key not in done]
        datasets = {name: self._dataset(name) for name in dict.fromkeys(job.dataset for job in missing)}
        with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="experiments", unit="run") as bar:
            for row in self._outcomes(missing, datasets):
                bar.update()
                if isinstance(row, Failure):
                    log.error("%s %s %d failed: %s", row.job.method, row.job.dataset, row.job.seed, row.message)
                    failed.append(row)
                    continue
                append(self.out, row)
                rows.append(row)
                self._write_table(rows)
                bar.set_postfix_str(f"{row.method} {row.dataset} {row.seed}: {row.normalized_reward:.2f} / "
                                    f"{row.normalized_cost:.2f}", refresh=False)
        return {"results": str(self.out), "table": str(self._table), "runs": len(missing) - len(failed),
                "skipped": len(jobs) - len(missing),
                "failed": [f"{failure.job.key}: {failure.message}" for failure in failed]}

    @property
    def _table(self) -> Path:
        return self.out.with_suffix(".md")

    def _jobs(self) -> list[Job]:
        """Seed by seed and dataset by dataset: an interrupted experiment compares all methods on what is done."""
        device, methods = check_device(self.device), self.methods or tuple(dsrl_methods())
        limits = {name: TASKS[name].target_cost if self.target_cost is None else self.target_cost
                  for name in self.datasets}
        for method in methods:
            configuration(method, 0.0, self.set)  # an unknown method or preset is named before anything runs
        if unused := [text for text in self.set if not any(concerns(text, method) for method in methods)]:
            raise ConfigurationError(f"set: {unused[0]!r} is for none of {', '.join(methods)}")
        return [Job(method, dataset, seed, limits[dataset], own.steps, self.episodes, self.runs,
                    self.batch or own.batch, device, (*own.settings, *self.set),
                    validation=math.ceil(self.validation / TASKS[dataset].horizon), precision=self.precision)
                for seed in self.seeds for dataset in self.datasets for method in methods
                for own in (budget(self.budget, method, dataset, self.steps),)]

    def _dataset(self, name: str) -> DsrlDataset:
        path = self.data / f"{name}.hdf5"
        if path.exists():
            return read_dsrl(path)
        count = self.trajectories or TASKS[name].trajectories
        bar = tqdm(range(count), desc=f"collect {name}", unit="episode")
        return collect(TASKS[name], count, 0, path, command_of(name, count, 0, path), bar)

    def _outcomes(self, jobs: list[Job], datasets: dict[str, DsrlDataset]) -> Iterator[Row | Failure]:
        if self.ray is None or not jobs:
            return run_here(jobs, datasets, self.workers)
        return run_on_ray(jobs, datasets, self.workers, self.ray)

    def _write_table(self, rows: list[Row]) -> None:
        changes = {"steps": self.steps, "batch": self.batch, "set": " ".join(self.set)}
        said = "".join(f", --{name} {value}" for name, value in changes.items() if value)
        note = (f"Added last: by the budget \"{self.budget}\"{said}; {self.episodes} test episodes, "
                f"{self.validation} steps of validation.")
        self._table.write_text(f"{LEGEND} {note}\n\n{table(rows)}")
