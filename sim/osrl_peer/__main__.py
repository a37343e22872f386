"""`python -m sim.osrl_peer`: OSRL's methods on a DSRL file, as scores or as times of a training step."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from safe_policy_core.data.dsrl import DsrlDataset, find_dsrl_file, read_dsrl
from safe_policy_core.data.dsrl_tasks import normalized_cost, normalized_reward
from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from sim.osrl_peer.peer import METHODS, Job, run
from sim.osrl_peer.timing import table

COLUMNS = ("method", "dataset", "seed", "target_cost", "normalized_reward", "normalized_cost", "episodes")


@dataclass
class OsrlPeer:
    """Trains OSRL's methods on a DSRL file and evaluates them in this project's environment."""

    file: tyro.conf.Positional[Path]
    """The DSRL file (HDF5), by path or task."""

    task: str = ""
    """The environment to evaluate in, e.g. SafetyPointGoal1-v0."""

    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 10_000
    """Training steps."""

    batch: int = 512
    """Of the value-based methods and BC."""

    cdt_batch: int = 256
    cost_limit: float = 10.0
    """Largest sum of costs of an episode."""

    episodes: int = 20
    threads: int = 2
    out: Path | None = None
    """Adds rows to this CSV, with methods named osrl_*; rows that are there already are not run again."""

    timing: bool = False
    """Only measure training steps, ours beside theirs."""

    def run(self) -> None:
        path = find_dsrl_file(self.file)
        dataset = read_dsrl(path)
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise ConfigurationError(f"methods: unknown {unknown[0]!r}, expected some of {', '.join(METHODS)}")
        if self.timing:
            for line in table(dataset, path, self.methods, self.batch, self.threads):
                print(line, flush=True)
            return
        env = make_env(self.task)
        done = self._done()
        for method in self.methods:
            for seed in self.seeds:
                if (f"osrl_{method}", path.stem, str(seed), str(self.cost_limit)) in done:
                    continue
                outcome = run(self._job(dataset, path, method, seed), env)
                self._report(dataset, path, method, seed, outcome.returns, outcome.costs, outcome.step_time)
        env.close()

    def _job(self, dataset: DsrlDataset, path: Path, method: str, seed: int) -> Job:
        within = dataset.returns[dataset.cost_returns <= self.cost_limit]
        low, high = float(dataset.returns.min()), float(dataset.returns.max())
        return Job(method, str(path), self.steps, self.cdt_batch if method == "cdt" else self.batch, self.cost_limit,
                   int(dataset.lengths.max()), (low, high), float(within.max()) if len(within) else high,
                   self.episodes, seed, self.threads)

    def _report(self, dataset: DsrlDataset, path: Path, method: str, seed: int, returns: list[float],
                costs: list[float], step_time: float) -> None:
        low, high = float(dataset.returns.min()), float(dataset.returns.max())
        row = dict(zip(COLUMNS, (f"osrl_{method}", path.stem, seed, self.cost_limit,
                                 normalized_reward(float(np.mean(returns)), low, high),
                                 normalized_cost(float(np.mean(costs)), self.cost_limit), len(returns)), strict=True))
        print(f"{row['method']:<15} seed {seed}   reward {row['normalized_reward']:6.3f}   cost "
              f"{row['normalized_cost']:6.3f}   {step_time:.1f} ms a step", flush=True)
        if self.out is not None:
            fresh = not self.out.exists()
            with self.out.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if fresh:
                    writer.writeheader()
                writer.writerow(row)

    def _done(self) -> set[tuple[str, ...]]:
        if self.out is None or not self.out.exists():
            return set()
        with self.out.open(newline="") as file:
            return {(row["method"], row["dataset"], row["seed"], row["target_cost"]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    tyro.cli(OsrlPeer).run()
