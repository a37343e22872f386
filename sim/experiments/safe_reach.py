"""SafeReach: offline training on the paper's 200 trajectories, then fine-tuning on other tables (FOSP section 5.4).

    make experiments EXP=safe_reach
    python -m sim.experiments safe_reach --methods fosp bc_safe --seeds 0 --tasks more_obstacles

For every method and seed: train offline, test on the original task (phase `offline`); then for every transfer task
test (`before`), fine-tune (`during`: its own episodes), test (`after`). All methods train on the same files and are
tested in the same scenes. Stages that are done are not repeated. Writes the CSV, a table and two figures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_policy_core.errors import ConfigurationError
from sim.experiments import safe_reach_report
from sim.experiments.contestants import CONTESTANTS, Contestant
from sim.experiments.stages import Stage, StageFailed, run_stage, settings

ORIGINAL = "original"
TRANSFER_TASKS = ("obstacle_shape", "target_shape", "more_obstacles", "random_layout")
METHODS = ("fosp", "safe_dreamer", "dreamer", "recovery_rl", "bc_all", "bc_safe")
COLUMNS = ("method", "task", "phase", "seed", "episodes", "successes", "violations")
SCENES_PER_SEED = 1000
"""Test scenes of training seed s begin at s times this, fine-tuning scenes at `FINETUNE_SCENES` plus that; scenes of
demonstrations are from a million on."""
FINETUNE_SCENES = 100_000


@dataclass
class SafeReachExperiment:
    """Offline training, then fine-tuning on transfer tasks, with tests before and after."""

    methods: tuple[str, ...] = METHODS
    """Names in `sim/experiments/contestants.py`, ablations among them."""
    tasks: tuple[str, ...] = TRANSFER_TASKS
    seeds: tuple[int, ...] = (0, 1, 2)
    tests: int = 100
    """Test episodes of a phase."""
    episodes: int = 40
    """Fine-tuning episodes; 0 ends with the tests before."""
    updates: int = 50
    """Gradient steps after each of them."""
    steps_scale: float = 1.0
    """Share of each method's offline steps; below 1 for a quick look."""
    out: Path = Path("runs/experiments/safe_reach")
    """Data, checkpoints and results of stages."""
    results: Path = Path("results")
    """Folder of the CSV, the table and the figures."""
    name: str = "safe_reach"
    """Their name."""
    jobs: int = 1
    """Methods and seeds that run at the same time."""
    threads: int = 2
    """CPU threads of each."""
    device: str = "cpu"
    """Torch device of training; tests run on the CPU."""

    def run(self) -> dict[str, Any]:
        """Runs what is missing. Returns where the results are.

        Raises `ConfigurationError` for an unknown name, and `StageFailed` at the end when a run stopped.
        """
        if unknown := sorted(set(self.methods) - CONTESTANTS.keys()):
            raise ConfigurationError(f"methods: unknown {unknown[0]!r}, expected some of {', '.join(CONTESTANTS)}")
        if unknown := sorted(set(self.tasks) - set(TRANSFER_TASKS)):
            raise ConfigurationError(f"tasks: unknown {unknown[0]!r}, expected some of {', '.join(TRANSFER_TASKS)}")
        contestants = [CONTESTANTS[name] for name in self.methods]
        for part in sorted({part for contestant in contestants for part in contestant.data}):
            run_stage(self._collection(part), self.threads)
        chains = [(contestant, seed) for seed in self.seeds for contestant in contestants]
        with ThreadPoolExecutor(self.jobs) as pool:
            # All of them before any exception is raised: one method's failure does not stop the others.
            done = list(pool.map(lambda chain: self._chain(*chain), chains))
        rows = [row for rows, _ in done for row in rows]
        target = self.results / f"{self.name}.csv"
        write_rows(target, rows)
        written = {"csv": str(target), "rows": len(rows), **safe_reach_report.write(self, rows)}
        if failures := [str(failure) for _, failure in done if failure]:
            raise StageFailed(f"{len(failures)} of {len(chains)} runs stopped, the others' results are in {target}: "
                              f"{'; '.join(failures)}")
        return written

    def _chain(self, contestant: Contestant, seed: int) -> tuple[list[dict[str, Any]], StageFailed | None]:
        """Rows of one method and seed, as far as it came, and what stopped it."""
        rows: list[dict[str, Any]] = []
        try:
            for task, phase, stage in self.stages(contestant, seed):
                result = run_stage(stage, self.threads)
                if phase:
                    known = {"method": contestant.name, "task": task, "phase": phase, "seed": seed}
                    rows.append(known | counts(result))
        except StageFailed as failure:
            return rows, failure
        return rows, None

    def stages(self, contestant: Contestant, seed: int) -> Iterator[tuple[str, str, Stage]]:
        """(task, phase or "" when it gives no row, stage) in order."""
        folder = self.folder(contestant, seed)
        data = ("--data", *(str(self.data(part)) for part in contestant.data))
        trained = folder / "offline"
        yield ORIGINAL, "", Stage(folder / "pretrain.json", (
            "pretrain", contestant.method, *data, "--out", str(trained), "--preset", contestant.preset,
            "--steps", str(max(1, round(contestant.steps * self.steps_scale))), "--seed", str(seed), "--device",
            self.device, *settings(contestant.settings)), ("--resume",))
        yield ORIGINAL, "offline", self._test(folder / "offline.json", trained, ORIGINAL, seed)
        for task in self.tasks:
            yield task, "before", self._test(folder / f"{task}_before.json", trained, task, seed)
            if not (contestant.finetunes and self.episodes):
                continue
            tuned = folder / task
            yield task, "during", Stage(folder / f"{task}_during.json", (
                "finetune", str(trained), task, *data, "--out", str(tuned), "--episodes", str(self.episodes),
                "--updates", str(self.updates), "--seed", str(FINETUNE_SCENES + SCENES_PER_SEED * seed), "--device",
                self.device), ("--resume",) if (tuned / "session.json").exists() else ())
            yield task, "after", self._test(folder / f"{task}_after.json", tuned, task, seed)

    def folder(self, contestant: Contestant, seed: int) -> Path:
        """Where a method's runs of one seed are."""
        return self.out / contestant.name / f"seed_{seed}"

    def data(self, part: tuple[str, int]) -> Path:
        """Folder of (behaviour, episodes)."""
        return self.out / "data" / f"{part[0]}_{part[1]}"

    def _collection(self, part: tuple[str, int]) -> Stage:
        folder, (behavior, episodes) = self.data(part), part
        return Stage(folder.with_suffix(".json"), (
            "collect", ORIGINAL, "--out", str(folder), "--episodes", str(episodes), "--behavior", behavior,
            "--seed", "0"))

    def _test(self, path: Path, checkpoint: Path, task: str, seed: int) -> Stage:
        return Stage(path, ("evaluate", str(checkpoint), "--task", task, "--episodes", str(self.tests), "--seed",
                            str(SCENES_PER_SEED * seed)))


def counts(result: dict[str, Any]) -> dict[str, int]:
    """Episodes, successes and violations of an `evaluate` or a `finetune`."""
    rows = result["rows"] if "rows" in result else result["episodes"]
    return {"episodes": len(rows), "successes": sum(bool(row["success"]) for row in rows),
            "violations": sum(bool(row["violation"]) for row in rows)}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """The CSV of the issue: one row a method, task, phase and seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
