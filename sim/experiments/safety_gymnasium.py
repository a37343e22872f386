"""FOSP's simulation tasks: offline training on three behaviours, then fine-tuning, with learning curves (section 5).

    make experiments EXP=safety_gymnasium
    make experiments EXP=safety_gymnasium EXP_ARGS='--tasks PointGoal1 --transfers PointGoal1:PointGoal2 --seen vision'

For every method, task and seed: train offline, testing at equal intervals, then fine-tune in the task, testing again.
A transfer fine-tunes in another task than that of the data (Figure 5). Stages that are done are not repeated. Writes
the CSV, a table beside the paper's numbers, the datasets' distribution (Figure 10), learning curves (Figure 3) and
what the world model reconstructs. The defaults are a small version for a CPU; the paper's sizes are named beside them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from safe_policy_core.environments import ACTION_REPEAT, SAFETY_GYMNASIUM_TASKS
from safe_policy_core.errors import ConfigurationError
from sim.experiments import safety_gymnasium_report
from sim.experiments.fosp_tables import TABLE_1
from sim.experiments.safe_reach import FINETUNE_SCENES, SCENES_PER_SEED
from sim.experiments.stages import Stage, StageFailed, run_stage, settings

METHODS = tuple(TABLE_1["PointGoal1"])
"""FOSP and its baselines on the same world model."""
OWN_SETTINGS = {"fosp": ("episode_length=250",)}
"""Settings that only one method has."""
TOLERANCE = 1.0
"""Nobody is hurt in this simulator: the violation probability of new weights is not a reason to throw them away."""


@dataclass(frozen=True)
class Run:
    """A method with a seed, trained on the data of one task and fine-tuned in the same task or another."""

    method: str
    offline_task: str
    task: str
    seed: int


@dataclass(frozen=True)
class Point:
    """A point of a learning curve: tests after so many gradient steps offline or environment steps online.

    episodes: tests. reward, cost: means of their undiscounted sums. violation_rate: share of them with any cost.
    cost_regret: cost of an environment step over the training so far (D.2): online that of its own episodes,
    offline, where nothing acts, that of the tests. None before the first fine-tuning episode.
    """

    method: str
    offline_task: str
    task: str
    seen: str
    phase: str
    seed: int
    trajectories: int
    gradient_steps: int
    environment_steps: int
    episodes: int
    reward: float
    cost: float
    violation_rate: float
    cost_regret: float | None


COLUMNS = [field.name for field in fields(Point)]


def cost_regret(cost: float, decisions: int) -> float:
    """rho_c = sum of costs / T (D.2). An action is held for `ACTION_REPEAT` of the T environment steps."""
    return cost / (decisions * ACTION_REPEAT)


@dataclass
class SafetyGymnasiumExperiment:
    """Offline training and fine-tuning on FOSP's simulation tasks."""

    methods: tuple[str, ...] = ("fosp",)
    """Of fosp, recovery_rl, dreamer and safe_dreamer."""
    tasks: tuple[str, ...] = tuple(SAFETY_GYMNASIUM_TASKS)
    """Fine-tuned where the data comes from."""
    transfers: tuple[str, ...] = ("PointGoal1:PointGoal2",)
    """Task of the data and task of fine-tuning."""
    seen: Literal["state", "vision"] = "state"
    """What the agent sees: its sensors, or two pictures of 64 x 64 (the paper)."""
    seeds: tuple[int, ...] = (0,)
    """The paper has five."""
    trajectories: int = 120
    """Episodes of a task's data, a third of each behaviour. The paper has 600."""
    preset: str = "small"
    """Of the method's configuration; the paper's is full."""
    set: tuple[str, ...] = ("discount=0.985", "horizon=10", "world_model.vector_scale=1.0")
    """Settings of every method: name=value. At 4 environment steps a decision, 0.985 is about the paper's 0.997."""
    steps: int = 4000
    """Gradient steps offline. The paper has 1M."""
    steps_points: int = 4
    """Points of the offline curve."""
    episodes: int = 20
    """Fine-tuning episodes, of 1000 environment steps (Race2: 500). The paper has 500."""
    episodes_points: int = 4
    """Points of the online curve."""
    updates: int = 50
    """Gradient steps after each of them."""
    batch: int = 16
    """Sequences of a batch. The paper has 64."""
    length: int = 16
    """Rows of a sequence, as in the paper."""
    tests: int = 10
    """Test episodes of a point."""
    out: Path = Path("runs/experiments/safety_gymnasium")
    """Data, checkpoints and results of stages."""
    results: Path = Path("results")
    """Folder of the CSV, the table and the figures."""
    name: str = "safety_gymnasium"
    """Their name."""
    threads: int = 2
    """CPU threads."""
    device: str = "cpu"
    """Torch device of training; tests run on the CPU."""

    def run(self) -> dict[str, Any]:
        """Runs what is missing. Returns where the results are.

        Raises `ConfigurationError` for an unknown name, and `StageFailed` at the end when a run stopped.
        """
        points: list[Point] = []
        failures = []
        for run in self.runs():
            try:
                for point in self.points(run):
                    points.append(point)
                    # After every point: hours lie between them, and the curve is looked at meanwhile.
                    write_points(self.results / f"{self.name}.csv", points)
            except StageFailed as failure:
                failures.append(str(failure))
        written = {"csv": str(self.results / f"{self.name}.csv"), "points": len(points),
                   **safety_gymnasium_report.write(self, points)}
        if failures:
            raise StageFailed(f"{len(failures)} runs stopped, the others' results are in {written['csv']}: "
                              f"{'; '.join(failures)}")
        return written

    def runs(self) -> list[Run]:
        """Transfers last. Raises `ConfigurationError` for an unknown name or a count that is too small."""
        for name in ("steps_points", "episodes_points", "tests", "trajectories"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}: expected at least 1, got {getattr(self, name)}")
        pairs = [(task, task) for task in self.tasks]
        for transfer in self.transfers:
            source, _, target = transfer.partition(":")
            pairs.append((source, target))
        known = ", ".join(SAFETY_GYMNASIUM_TASKS)
        if unknown := [task for pair in pairs for task in pair if task not in SAFETY_GYMNASIUM_TASKS]:
            raise ConfigurationError(f"tasks: unknown {unknown[0]!r}, expected some of {known}, or in transfers two of "
                                     "them as PointGoal1:PointGoal2")
        if unknown := sorted(set(self.methods) - set(METHODS)):
            raise ConfigurationError(f"methods: unknown {unknown[0]!r}, expected some of {', '.join(METHODS)}")
        return [Run(method, source, target, seed) for source, target in pairs for seed in self.seeds
                for method in self.methods]

    def points(self, run: Run) -> Iterator[Point]:
        """The learning curve of a run, made as it goes. Offline points of a transfer are those of its first task."""
        run_stage(self._collection(run.offline_task), self.threads)
        cost, decisions = 0.0, 0
        for number in range(1, self.steps_points + 1):
            steps = round(self.steps * number / self.steps_points)
            run_stage(self._pretraining(run, steps, number), self.threads)
            test = run_stage(self._test(run, f"offline_{steps}", self.offline(run), run.offline_task), self.threads)
            cost, decisions = cost + test["cost"] * test["episodes"], decisions + test["steps"]
            if run.task == run.offline_task:
                yield self._point(run, "offline", steps, 0, test, cost_regret(cost, decisions))
        if run.task != run.offline_task:
            test = run_stage(self._test(run, f"online_{run.task}_0", self.offline(run), run.task), self.threads)
        yield self._point(run, "online", self.steps, 0, test, None)
        for number in range(1, self.episodes_points + 1):
            episodes = round(self.episodes * number / self.episodes_points)
            tuned = run_stage(self._tuning(run, episodes, number), self.threads)
            test = run_stage(self._test(run, f"online_{run.task}_{episodes}", self.online(run), run.task), self.threads)
            yield self._point(run, "online", self.steps + tuned["updates"], tuned["steps"] * ACTION_REPEAT, test,
                              cost_regret(tuned["total_cost"], tuned["steps"]))

    def data(self, task: str) -> Path:
        """Folder of a task's episodes."""
        return self.out / "data" / f"{task}-{self.seen}_{self.trajectories}"

    def folder(self, run: Run) -> Path:
        """Where what a run learns offline is."""
        return self.out / f"{run.offline_task}-{self.seen}" / run.method / f"seed_{run.seed}"

    def offline(self, run: Run) -> Path:
        """Its offline checkpoint."""
        return self.folder(run) / "offline"

    def online(self, run: Run) -> Path:
        """Its fine-tuned one."""
        return self.folder(run) / f"online_{run.task}"

    def _collection(self, task: str) -> Stage:
        folder = self.data(task)
        return Stage(folder.with_suffix(".json"), (
            "collect", f"{task}-{self.seen}", "--out", str(folder), "--episodes", str(self.trajectories),
            "--seed", "0"))

    def _pretraining(self, run: Run, steps: int, number: int) -> Stage:
        # A later part of the curve goes on with the part before it, whether or not it was interrupted itself.
        go_on = ("--resume",) if number > 1 else ()
        return Stage(self.folder(run) / f"pretrain_{steps}.json", (
            "pretrain", run.method, "--data", str(self.data(run.offline_task)), "--out", str(self.offline(run)),
            "--preset", self.preset, "--steps", str(steps), *self._sizes(), "--seed", str(run.seed), *go_on,
            *settings((*self.set, *OWN_SETTINGS.get(run.method, ())))), () if go_on else ("--resume",))

    def _tuning(self, run: Run, episodes: int, number: int) -> Stage:
        go_on = ("--resume",) if number > 1 else ()
        begun = (self.online(run) / "session.json").exists()
        return Stage(self.folder(run) / f"finetune_{run.task}_{episodes}.json", (
            "finetune", str(self.offline(run)), f"{run.task}-{self.seen}", "--data", str(self.data(run.offline_task)),
            "--out", str(self.online(run)), "--episodes", str(episodes), "--updates", str(self.updates), *self._sizes(),
            "--violation-tolerance", str(TOLERANCE), "--seed", str(FINETUNE_SCENES + SCENES_PER_SEED * run.seed),
            *go_on), ("--resume",) if begun and not go_on else ())

    def _sizes(self) -> tuple[str, ...]:
        return "--batch", str(self.batch), "--length", str(self.length), "--device", self.device

    def _test(self, run: Run, name: str, checkpoint: Path, task: str) -> Stage:
        return Stage(self.folder(run) / f"test_{name}.json", (
            "evaluate", str(checkpoint), "--task", f"{task}-{self.seen}", "--episodes", str(self.tests), "--seed",
            str(SCENES_PER_SEED * run.seed)))

    def _point(self, run: Run, phase: str, gradient_steps: int, environment_steps: int, test: dict[str, Any],
               regret: float | None) -> Point:
        return Point(run.method, run.offline_task, run.task, self.seen, phase, run.seed, self.trajectories,
                     gradient_steps, environment_steps, test["episodes"], round(test["reward"], 3),
                     round(test["cost"], 3), test["violation_rate"], None if regret is None else round(regret, 5))


def write_points(path: Path, points: list[Point]) -> None:
    """One row a point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
