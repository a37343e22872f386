"""`python -m sim.osrl_peer`: OSRL's methods on a DSRL file, as scores or as times of a training step."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from safe_policy_core.data.dsrl import DsrlDataset, find_dsrl_file, read_dsrl
from safe_policy_core.data.dsrl_tasks import normalized_cost, normalized_reward
from safe_policy_core.data.sequences import returns_within
from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_core.methods.sequence.config import SequenceConfig
from sim.collectors.tasks import TASKS
from sim.experiments.job import Job as OwnJob
from sim.experiments.job import run_job
from sim.experiments.rows import Row, append, read_rows
from sim.experiments.table import table
from sim.osrl_peer.peer import METHODS, Job, run
from sim.osrl_peer.timing import table as times

OURS = {"bc_safe": "bc"} | {name: name for name in METHODS if name != "bc_safe"}
"""OSRL's method -> this project's."""


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

    units: int = 256
    """Hidden units of the value-based methods and BC."""

    target_rate: float = 0.005
    """How far slow copies move at every step."""

    episodes: int = 20
    threads: int = 2
    ours: bool = True
    """Also train our methods, with OSRL's settings: as many units, observations as they are. The file's name must be
    that of a dataset of the benchmark."""

    runs: Path = Path("runs/osrl_peer")
    """Folder of our trainings."""

    out: Path | None = None
    """Adds rows to this CSV, OSRL's methods named osrl_*, and writes a table beside it (.md); rows that are there
    already are not run again."""

    timing: bool = False
    """Only measure training steps, ours beside theirs."""

    def run(self) -> None:
        path = find_dsrl_file(self.file)
        dataset = read_dsrl(path)
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise ConfigurationError(f"methods: unknown {unknown[0]!r}, expected some of {', '.join(METHODS)}")
        if self.timing:
            for line in times(dataset, path, self.methods, self.batch, self.threads):
                print(line, flush=True)
            return
        self._check(path)
        rows: list[Row] = [] if self.out is None else read_rows(self.out)
        done = {row.key for row in rows}
        env = make_env(self.task)
        try:
            for method, seed in itertools.product(self.methods, self.seeds):
                if self.ours and (OURS[method], path.stem, seed, self.cost_limit) not in done:
                    self._report(rows, run_job(self._own_job(path, method, seed), dataset, progress=True))
                if (f"osrl_{method}", path.stem, seed, self.cost_limit) not in done:
                    outcome = run(self._job(dataset, path, method, seed), env)
                    self._report(rows, self._row(dataset, path, method, seed, outcome.returns, outcome.costs))
        finally:
            env.close()

    def _check(self, path: Path) -> None:
        """What would otherwise fail after the first training. Raises `ConfigurationError`."""
        if not self.task:
            raise ConfigurationError("task: expected the environment to evaluate in, e.g. SafetyPointGoal1-v0")
        if self.ours and path.stem not in TASKS:
            raise ConfigurationError(f"file: expected the name of a dataset of the benchmark ({', '.join(TASKS)}), got "
                                     f"{path.stem}; rename it, or leave our methods out with --no-ours")

    def _own_job(self, path: Path, method: str, seed: int) -> OwnJob:
        # CDT has a size of its own on both sides, which is the default of both.
        settings = () if method == "cdt" else (f"units={self.units}", "vae_units=400", "standardise=false",
                                               f"target_rate={self.target_rate}")
        return OwnJob(OURS[method], path.stem, seed, self.cost_limit, self.steps, self.episodes, self.runs,
                      self.cdt_batch if method == "cdt" else self.batch, settings=settings)

    def _job(self, dataset: DsrlDataset, path: Path, method: str, seed: int) -> Job:
        low, high = float(dataset.returns.min()), float(dataset.returns.max())
        return Job(method, str(path), self.steps, self.cdt_batch if method == "cdt" else self.batch, self.cost_limit,
                   int(dataset.lengths.max()), (low, high), self._asked_return(dataset),
                   self.episodes, seed, self.threads, units=self.units, target_rate=self.target_rate)

    def _asked_return(self, dataset: DsrlDataset) -> float:
        """What our sequence models ask for: both sides are told the same."""
        cost = max(self.cost_limit, float(dataset.cost_returns.min()))
        return float(returns_within(dataset, np.array([cost]), SequenceConfig().target_quantile)[0])

    def _row(self, dataset: DsrlDataset, path: Path, method: str, seed: int, returns: list[float],
             costs: list[float]) -> Row:
        low, high = float(dataset.returns.min()), float(dataset.returns.max())
        return Row(f"osrl_{method}", path.stem, seed, self.cost_limit,
                   normalized_reward(float(np.mean(returns)), low, high),
                   normalized_cost(float(np.mean(costs)), self.cost_limit), len(returns))

    def _report(self, rows: list[Row], row: Row) -> None:
        rows.append(row)
        print(f"{row.method:<15} seed {row.seed}   reward {row.normalized_reward:6.3f}   cost "
              f"{row.normalized_cost:6.3f}", flush=True)
        if self.out is not None:
            append(self.out, row)
            self.out.with_suffix(".md").write_text(table(paired(rows)))


def paired(rows: list[Row]) -> list[Row]:
    """Method by method, first our rows, then OSRL's."""
    order = [name for theirs, ours in OURS.items() for name in (ours, f"osrl_{theirs}")]
    return sorted(rows, key=lambda row: (order.index(row.method), row.dataset, row.seed))


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code: 2 for an error that a person can mend."""
    try:
        tyro.cli(OsrlPeer, args=list(arguments), prog="python -m sim.osrl_peer").run()
    except UserError as error:
        sys.stderr.write(f"osrl_peer: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
