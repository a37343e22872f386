"""SAS: the same decision transformers with and without alignment at test time (Tables 1 and 3, Appendix C)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from safe_policy_core.checkpoint import RUN_FOLDER
from safe_policy_core.commands import check_device, require_positive
from safe_policy_core.data.dsrl import DsrlDataset, read_dsrl
from safe_policy_core.data.dsrl_tasks import normalized_cost, normalized_reward
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.evaluation import EpisodeResult, rollout
from safe_policy_core.interfaces import Policy, RobotEnv
from safe_policy_core.methods.overrides import override
from safe_policy_core.methods.registry import make_learner
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.learner import SasLearner
from safe_policy_core.statistics import clopper_pearson
from safe_policy_core.targets import set_target_cost
from safe_policy_core.training.offline import train_offline
from sim.collectors.tasks import TASKS
from sim.experiments.job import configuration
from sim.experiments.rows import append, read_rows
from sim.experiments.validation import FIRST_TEST_SEED, ask_safely

BASES = ("dt", "cdt", "qpt")
RECORDED = 20_000
"""Rows of the data, at most, that a policy with recorded prompts keeps."""
CHOICES: tuple[dict[str, Any], ...] = tuple(
    [{"realign": 0, "recorded_quantile": quantile} for quantile in (0.0, 0.8, 0.95)]
    + [{"realign": 10, "told": False, "recorded_quantile": quantile} for quantile in (0.5, 0.8, 0.9)])
"""For recorded prompts, of which one is chosen (`SasExperiment.choose`)."""
ANY_EPISODE: dict[str, Any] = {"selection": "random", "recorded_cost": math.inf, "recorded_quantile": 0}
REWARD_KEPT = 0.95
"""Share of the base's reward that alignment may not fall below."""
VARIANTS: dict[str, dict[str, Any]] = {
    "sas": {}, "sas_rising": {"lyapunov": "rising"}, "no_v": {"selection": "no_v"}, "maxmax": {"selection": "maxmax"},
    "random": {"selection": "random"}, "cost": {"selection": "cost"}, "sliding": {"keep_prompt": False},
    # Appendix C: imagined courses, steps of the energy, length and number of prompts.
    "n20": {"trajectories": 20, "candidates": 20}, "n100": {"trajectories": 100, "candidates": 100},
    "energy1": {"energy_steps": 1}, "energy10": {"energy_steps": 10}, "prompt3": {"prompt_steps": 3},
    "prompt10": {"prompt_steps": 10}, "prompts3": {"prompts": 3}, "prompts5": {"prompts": 5},
    # Recorded prompts, of good episodes or of any (Appendix C's random prompt, for them).
    "recorded": {"recorded": RECORDED},
    "recorded_random": {"recorded": RECORDED} | ANY_EPISODE,
}
"""Behind a base's name and "_": what is changed in `SasConfig`."""
FALLING_FAILS = ("HopperVelocity", "HumanoidVelocity", "Walker2dVelocity")
"""Where an episode fails by ending early, as in the paper's Table 3; elsewhere by any cost."""
TABLE_HEAD = "| dataset | method | seeds | reward | cost | failures |"
LEGEND = """The same checkpoint with and without alignment. Normalised reward and cost as in `offline_safe_rl.md`, mean
± deviation over the seeds; a failure is an episode with any cost (Hopper, Humanoid, Walker2d: one that ends early),
with an exact 95% interval over all episodes. **Bold**: cost or failure rate is lower than without alignment.
_Italic_: the reward is lower by more than 5%."""


@dataclass(frozen=True)
class SasRow:
    """One policy in one dataset's environment; means over `episodes`."""

    method: str
    dataset: str
    seed: int
    normalized_reward: float
    normalized_cost: float
    failure_rate: float
    episodes: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes a row unique."""
        return self.method, self.dataset, self.seed


@dataclass
class SasExperiment:
    """Trains a base and its heads once for all variants. Rows that are in the results already are not run again."""

    methods: tuple[str, ...] = ("dt", "dt_sas", "dt_sas_rising", "dt_no_v", "dt_maxmax", "dt_random", "cdt", "cdt_sas",
                                "cdt_sas_rising", "cdt_no_v", "cdt_maxmax", "cdt_random")
    """A base (dt, cdt, qpt), or BASE_VARIANT."""

    datasets: tuple[str, ...] = tuple(TASKS)
    seeds: tuple[int, ...] = (0, 1, 2)
    target_cost: float | None = None
    """Cost that an episode may have; by default each dataset's own."""

    steps: int = 4000
    """Gradient steps of a base: fewer (an undertrained one) belong into another --out, as all other settings do."""

    head_steps: int = 1500
    """Gradient steps of the heads."""

    batch: int = 32
    """Windows of a batch."""

    set: tuple[str, ...] = ("length=20", "units=64", "dt.heads=1", "learning_rate=0.0005", "warm_up=200")
    """Settings of the bases, NAME=VALUE or BASE.NAME=VALUE; another size belongs into another --out and --runs."""

    align: tuple[str, ...] = ()
    """Settings of the alignment, NAME=VALUE of `SasConfig`."""

    episodes: int = 20
    """Test episodes."""

    choose: int = 0
    """Episodes for choosing, at least 2, on layouts of their own (`sim/experiments/validation.py`): what a base asks
    for, with and without alignment, and which of `CHOICES` recorded prompts are, or whether the base is left alone. 0:
    the base's `target_quantile`, and `SasConfig`."""

    data: Path = Path("runs/benchmark")
    """Folder of the datasets, NAME.hdf5 (`make experiments EXP=offline_safe_rl` collects them)."""

    out: Path = Path("results/sas.csv")
    """Results. Beside it go the table (.md), whose heading is kept once it is there, and the settings of each
    dataset's rows (.settings.json): rows of other settings are refused."""

    runs: Path = Path("runs/sas")
    """Folder of the trainings, so that a killed one goes on in the middle."""

    device: str = "cpu"
    """Torch device."""

    def run(self) -> dict[str, Any]:
        """Runs what is missing. Returns the files."""
        require_positive(steps=self.steps, head_steps=self.head_steps, batch=self.batch, episodes=self.episodes)
        if self.choose == 1 or self.choose < 0:
            raise ConfigurationError(f"choose: expected 0, or at least 2 episodes, got {self.choose}")
        for method in self.methods:
            self._require_room(method)
        if unknown := [name for name in self.datasets if name not in TASKS]:
            raise ConfigurationError(f"datasets: unknown {unknown[0]!r}, expected some of {', '.join(TASKS)}")
        torch.set_num_threads(1)
        rows = read_rows(self.out, SasRow)
        done = {row.key for row in rows}
        known = self._known(rows)
        jobs = [(seed, dataset, base, missing) for seed in self.seeds for dataset in self.datasets for base in BASES
                if (missing := [method for method in self.methods
                                if split(method)[0] == base and (method, dataset, seed) not in done])]
        for seed, dataset, base, methods in tqdm(jobs, desc="sas", unit="base"):
            known[dataset] = self._settings()
            for row in self._rows(seed, dataset, base, methods):
                self._settings_file.parent.mkdir(parents=True, exist_ok=True)
                self._settings_file.write_text(json.dumps(known, indent=1) + "\n")
                append(self.out, row)
                rows.append(row)
                self._write_table(rows)
        return {"results": str(self.out), "table": str(self.out.with_suffix(".md")),
                "runs": sum(len(methods) for *_, methods in jobs), "skipped": len(done)}

    @property
    def _settings_file(self) -> Path:
        return self.out.with_suffix(".settings.json")

    def _settings(self) -> dict[str, Any]:
        """What a row depends on and does not say. The alignment as it came to be: its defaults change."""
        align = dataclasses.asdict(override(SasConfig(), self.align))
        return {name: getattr(self, name) for name in ("target_cost", "steps", "head_steps", "batch", "choose")} | {
            "set": sorted(self.set)} | {f"align.{name}": value for name, value in align.items() if name != "base"}

    def _known(self, rows: Sequence[SasRow]) -> dict[str, Any]:
        """The settings of each dataset's rows. Raises `ConfigurationError` where those that are there are of others."""
        path, mine = self._settings_file, self._settings()
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for row in rows:
            if row.dataset not in self.datasets:
                continue
            if row.dataset not in known and not self._folder(split(row.method)[0], row.dataset, row.seed).exists():
                raise ConfigurationError(f"out: {self.out} has rows of {row.dataset} of unknown settings ({path} does "
                                         f"not say them, and {self.runs} has not their base); choose another --out")
            theirs = known.get(row.dataset, mine)
            for name in sorted(mine.keys() | theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    raise ConfigurationError(f"{name.partition('.')[0]}: expected {name} {theirs.get(name)} as in the "
                                             f"rows of {row.dataset} in {self.out}, got {mine.get(name)}; choose "
                                             "another --out")
        return known

    def _require_room(self, method: str) -> None:
        """Raises `ConfigurationError` for an unknown method, and for prompts that do not fit into the context."""
        base, changes = split(method)
        align = dataclasses.replace(override(SasConfig(), self.align), **changes or {})
        if changes is not None:
            try:
                align.require_room(configuration(base, 1.0, self.set).length)
            except ConfigurationError as error:
                raise ConfigurationError(f"methods: {method}: {error}") from error

    def _write_table(self, rows: Sequence[SasRow]) -> None:
        """The heading that is there may have been written by hand."""
        path = self.out.with_suffix(".md")
        if path.exists():
            heading = path.read_text().partition(TABLE_HEAD)[0]
        else:
            heading = (f"{LEGEND} Bases: {self.steps} gradient steps of {self.batch} windows, {' '.join(self.set)}; "
                       f"{self.head_steps} steps of the heads{''.join(f', {change}' for change in self.align)}. "
                       f"Settings of each dataset: {self._settings_file.name}.\n\n")
        path.write_text(heading + table(rows))

    def _folder(self, base: str, dataset: str, seed: int) -> Path:
        return self.runs / f"{base}-{dataset}-{seed}-{self.steps}"

    def _rows(self, seed: int, name: str, base: str, methods: Sequence[str]) -> Any:
        """The rows of one base, as they come."""
        path = self.data / f"{name}.hdf5"
        if not path.exists():
            raise ConfigurationError(f"data: {path} is missing; `safe-policy collect {TASKS[name].env_id} "
                                     f"--trajectories {TASKS[name].trajectories} --out {path}` records it")
        dataset, task, device = read_dsrl(path), TASKS[name], check_device(self.device)
        limit = task.target_cost if self.target_cost is None else self.target_cost
        folder = self._folder(base, name, seed)
        learner = make_learner(base, dataset.specs, configuration(base, limit, self.set), seed, device)
        self._train(learner, dataset, self.steps, seed, folder)
        heads = SasLearner(dataset.specs, override(SasConfig(base=str(folder)), self.align), seed, device)
        if set(methods) != {base}:
            self._train(heads, dataset, self.head_steps, seed, folder / "heads")
        env = task.make_env()
        try:
            contest = _Contest(name, env, dataset, learner, heads, limit)
            if self.choose:
                contest.asked = ask_safely(learner.policy(), env, dataset, limit, range(self.choose),
                                           folder / "asked.json").target_return
            first = FIRST_TEST_SEED if self.choose else 0
            for method in methods:
                changes = split(method)[1]
                if self.choose and changes and "recorded" in changes:
                    kind = contest.chosen(range(self.choose), folder / "recorded.json")
                    changes = None if kind is None else kind | changes
                results = contest.run(changes, range(first, first + self.episodes))
                reward, cost = contest.mean(results)
                yield SasRow(method, name, seed, reward, cost,
                             float(np.mean([failed(name, result) for result in results])), self.episodes)
        finally:
            env.close()

    def _train(self, learner: Any, dataset: DsrlDataset, steps: int, seed: int, folder: Path) -> None:
        train_offline(learner, dataset, steps, self.batch, 1, seed, folder / RUN_FOLDER, folder / "metrics.jsonl",
                      resume=True)


@dataclass
class _Contest:
    """A base and its heads in the task `name`, and the return that both ask for (None: the base's own)."""

    name: str
    env: RobotEnv
    dataset: DsrlDataset
    learner: Any
    heads: SasLearner
    limit: float
    asked: float | None = None

    def run(self, changes: dict[str, Any] | None, seeds: Sequence[int]) -> list[EpisodeResult]:
        """Episodes of the base (None), or of it aligned by the changed `SasConfig`."""
        policy: Policy = self.learner.policy()
        if changes is not None:
            config = dataclasses.replace(self.heads.config, **changes)
            self.heads.model.record(self.dataset, config)
            policy = self.heads.policy(config)
        if self.asked is not None:
            set_target_cost(policy, self.limit, self.asked)
        return [rollout(self.env, policy, seed) for seed in seeds]

    def mean(self, results: Sequence[EpisodeResult]) -> tuple[float, float]:
        """Normalised reward and cost."""
        reward, cost = np.mean([[result.reward, result.cost] for result in results], 0)
        low, high = float(self.dataset.returns.min()), float(self.dataset.returns.max())
        return normalized_reward(float(reward), low, high), normalized_cost(float(cost), self.limit)

    def danger(self, results: Sequence[EpisodeResult]) -> float:
        """The share of failures where falling is one, else the cost."""
        if self.name in FALLING_FAILS:
            return float(np.mean([failed(self.name, result) for result in results]))
        return self.mean(results)[1]

    def chosen(self, seeds: Sequence[int], record: Path) -> dict[str, Any] | None:
        """Of `CHOICES` the safest among those that keep the base's reward; None leaves the base alone.

        The base is left alone where none of those is safer. record: JSON of all; where it is there already, they are
        not run again.
        """
        if not record.exists():
            before = self.run(None, seeds)
            tried = [self.run(VARIANTS["recorded"] | choice, seeds) for choice in CHOICES]
            without, means = self.mean(before), [self.mean(results) for results in tried]
            danger, alone = [self.danger(results) for results in tried], self.danger(before)
            kept = [number for number, (reward, _) in enumerate(means) if reward >= REWARD_KEPT * without[0]]
            index = min(kept, key=lambda number: danger[number], default=None)
            content = {"without": without, "danger": alone, "kept": kept,
                       "tried": list(zip(CHOICES, means, danger, strict=True)),
                       "chosen": CHOICES[index] if index is not None and danger[index] < alone else None}
            record.write_text(json.dumps(content, indent=1) + "\n")
        found: dict[str, Any] | None = json.loads(record.read_text())["chosen"]
        return found


def split(method: str) -> tuple[str, dict[str, Any] | None]:
    """A method's base, and the changes of its variant, None without alignment. Raises `ConfigurationError`."""
    base, _, variant = method.partition("_")
    if base not in BASES or (variant and variant not in VARIANTS):
        raise ConfigurationError(f"methods: unknown {method!r}, expected one of {', '.join(BASES)}, or BASE_VARIANT "
                                 f"with one of {', '.join(VARIANTS)}")
    return base, VARIANTS[variant] if variant else None


def failed(dataset: str, result: EpisodeResult) -> bool:
    """Whether an episode counts as a failure."""
    return result.terminated if dataset in FALLING_FAILS else result.violation


def table(rows: Sequence[SasRow]) -> str:
    """Markdown: a line for each dataset and method, compared with its base on the same seeds."""
    lines = [TABLE_HEAD, "| --- | --- | --- | --- | --- | --- |"]
    ordered = sorted(rows, key=lambda row: row.dataset)
    for dataset, method in dict.fromkeys((row.dataset, row.method) for row in ordered):
        mine = {row.seed: row for row in rows if (row.dataset, row.method) == (dataset, method)}
        base = {row.seed: row for row in rows if (row.dataset, row.method) == (dataset, split(method)[0])}
        shared = [seed for seed in mine if seed in base]
        values = _values(mine.values())
        better = worse = np.zeros(3, bool)
        if shared and split(method)[1] is not None:
            before, after = (_values([some[seed] for seed in shared]).mean(0) for some in (base, mine))
            better, worse = after < before, after < before - 0.05 * np.abs(before)
        count = sum(row.episodes for row in mine.values())
        low, high = clopper_pearson(round(sum(row.failure_rate * row.episodes for row in mine.values())), count)
        mean, deviation = values.mean(0), values.std(0)
        reward, cost = (f"{mean[index]:.2f} ±{deviation[index]:.2f}" for index in (0, 1))
        failures = f"{mean[2]:.2f} [{low:.2f}, {high:.2f}]"
        lines.append(f"| {dataset} | {method} | {len(mine)} | {f'_{reward}_' if worse[0] else reward} | "
                     f"{f'**{cost}**' if better[1] else cost} | {f'**{failures}**' if better[2] else failures} |")
    return "\n".join(lines) + "\n"


def _values(rows: Any) -> np.ndarray:
    """(seeds, 3): reward, cost, failure rate."""
    return np.array([[row.normalized_reward, row.normalized_cost, row.failure_rate] for row in rows])
