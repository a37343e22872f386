"""DSPO against what learns without cost labels too (section 4.1), and its discriminators (4.2, 4.3).

Every dataset is split into a few safe demonstrations and unlabelled data (`split_safe`). All methods are given the
same two parts, in which every cost is zero; the truth is looked at in the end.
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from safe_policy_core.commands import check_device, require_positive
from safe_policy_core.data.dsrl import DsrlDataset, read_dsrl
from safe_policy_core.data.dsrl_tasks import normalized_cost, normalized_reward
from safe_policy_core.data.sources import together
from safe_policy_core.data.split_safe import read_split, read_truth, split_safe
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.evaluation import rollout
from safe_policy_core.methods.dspo.config import DiscriminatorConfig, DspoConfig, recalled
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
from safe_policy_core.methods.dspo.pipeline import SIGNALS, DspoRun
from safe_policy_core.methods.dspo.scoring import discriminator_quality
from safe_policy_core.methods.dspo.trajectories import Trajectories
from safe_policy_core.methods.overrides import override, preset
from safe_policy_core.methods.registry import load_policy
from safe_policy_core.training.offline import train_offline
from sim.collectors.tasks import BENCHMARK, TASKS
from sim.experiments.dspo_results import append_quality, read_quality, require_settings, write_table
from sim.experiments.job import Job, run_job
from sim.experiments.rows import Row, append, read_rows

BASELINES = {"bc_all": ("bc:all", False), "bc_safe": ("bc:all", True), "td3_bc": ("td3_bc", False),
             "iql": ("iql", False), "cql": ("cql", False), "dwbc": ("dwbc", False), "rgm": ("rgm", False),
             "cdt_v": ("cdt_v", False)}
"""Name -> (method:preset, whether it sees the demonstrations alone). BC-Safe: all that there is in D^S."""
OURS = {"dspo": "dspo", "dspo_no_return_agnostic": "no_return_agnostic",
        "dspo_no_return_agnostic_gp": "no_return_agnostic_gp", "dspo_transformer": "transformer",
        "dspo_recalled": "dspo", "dspo_ddpm": "dspo"}
"""Name -> variant of the discriminator behind which the other stages are the same (Table 2's final score).

dspo_recalled: without the diffusion. dspo_ddpm: with the discriminator and the diffusion of `dspo`, which is sampled in
all of its steps (DDPM) in the place of a few (DDIM)."""
SCENES = ("SafeReach",)
"""Datasets whose episodes happen in scenes of their own. Discriminators are shown changes there, and states (the
paper's inputs) elsewhere, where a place tells what is safe: PointCircle1's correlation is 0.37 from states and 0.23
from changes, SafeReach's -0.10 and 0.61."""
_TRAINING_SHARE = 0.7


def variants(settings: DiscriminatorConfig) -> dict[str, tuple[DiscriminatorConfig, bool]]:
    """Name -> (settings, whether it is taught the truth of some and asked for that of the others, as in Figure 4)."""
    plain = dataclasses.replace(settings, return_weight=0.0)
    alone = dataclasses.replace(plain, folds=1, opposite="all")
    return {"dspo": (settings, False), "no_return_agnostic": (plain, False),
            "all_unlabelled": (dataclasses.replace(settings, opposite="all"), False),
            **{f"all_unlabelled_weight_{weight:g}": (dataclasses.replace(settings, opposite="all",
                                                                         return_weight=weight), False)
               for weight in (0.0, 0.2, 0.5, 1.0)},
            "no_return_agnostic_gp": (dataclasses.replace(plain, gradient_penalty=10.0), False),
            "transformer": (dataclasses.replace(settings, network="transformer"), False),
            "transformer_no_return_agnostic": (dataclasses.replace(plain, network="transformer"), False),
            "states": (dataclasses.replace(settings, inputs="states"), False),
            "changes": (dataclasses.replace(settings, inputs="changes"), False),
            "one_fold": (dataclasses.replace(settings, folds=1), False),
            "taught_transformer": (dataclasses.replace(alone, network="transformer"), True),
            "taught_mlp": (dataclasses.replace(alone, network="mlp"), True)}


def settings_of(dataset: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """DSPO's settings for a dataset: its inputs, unless `chosen` says otherwise, then the chosen ones."""
    return (f"discriminator.inputs={'changes' if dataset in SCENES else 'states'}", *chosen)


@dataclass
class DspoExperiment:
    """Trains and tests every method and discriminator. Rows that are in the results already are not run again."""

    datasets: tuple[str, ...] = BENCHMARK
    seeds: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = ("dspo", "dspo_recalled", *BASELINES)
    variants: tuple[str, ...] = ("dspo", "no_return_agnostic", "all_unlabelled", "all_unlabelled_weight_0",
                                 "no_return_agnostic_gp", "transformer", "transformer_no_return_agnostic", "states",
                                 "changes", "one_fold", "taught_transformer", "taught_mlp")
    """Discriminators."""

    demonstrations: int = 12
    even_returns: bool = False
    """Of the unlabelled only as many safe as unsafe ones in each tenth of the returns (`split-safe --even-returns`)."""

    target_cost: float | None = None
    """Cost up to which an episode is safe; by default each dataset's own."""

    preset: str = "small"
    """Of DSPO."""

    set: tuple[str, ...] = ()
    """Single settings of DSPO: name=value ... Inputs of the discriminator are the dataset's (`SCENES`)."""

    steps: int = 3000
    """Gradient steps of the baselines."""

    batch: int = 256
    """Steps of a batch of the baselines, as of DSPO's own cloning."""

    episodes: int = 20
    """Test episodes."""

    data: Path = Path("runs/benchmark")
    """Folder of the datasets, NAME.hdf5 (`make experiments EXP=offline_safe_rl` collects them)."""

    out: Path = Path("results/dspo.csv")
    """Rows, made with the same settings all of them. A new file's are kept beside it (NAME.settings.json)."""

    discriminators: Path = Path("results/dspo_discriminator.csv")
    runs: Path = Path("runs/dspo_experiment")
    """Folder of the splits and trainings."""

    device: str = "cpu"
    """Torch device."""

    def run(self) -> dict[str, Any]:
        """Runs what is missing. Returns the files."""
        require_positive(steps=self.steps, batch=self.batch, episodes=self.episodes, demonstrations=self.demonstrations)
        if unknown := [name for name in self.methods if name not in (*OURS, *BASELINES)]:
            raise ConfigurationError(f"methods: unknown {unknown[0]!r}, expected some of "
                                     f"{', '.join((*OURS, *BASELINES))}")
        known = variants(DiscriminatorConfig())
        if unknown := [name for name in self.variants if name not in known]:
            raise ConfigurationError(f"variants: unknown {unknown[0]!r}, expected some of {', '.join(known)}")
        configs = {dataset: override(preset("dspo", self.preset), settings_of(dataset, self.set))
                   for dataset in self.datasets}
        if "dspo_ddpm" in self.methods and any(config.diffusion.generated == 0 for config in configs.values()):
            raise ConfigurationError("methods: dspo_ddpm: expected diffusion.generated above 0")
        self._require_settings()
        rows, told = read_rows(self.out), read_quality(self.discriminators)
        done = {row.key for row in rows}
        jobs = [(seed, dataset) for seed in self.seeds for dataset in self.datasets]
        for seed, dataset in tqdm(jobs, desc="dspo", unit="dataset"):
            limit = TASKS[dataset].target_cost if self.target_cost is None else self.target_cost
            config = configs[dataset]
            even = "-even" if self.even_returns else ""
            split = self.runs / f"{dataset}-{seed}-{limit:g}-{self.demonstrations}{even}" / "split"
            if not split.exists():
                split_safe((self.data / f"{dataset}.hdf5",), split, demonstrations=self.demonstrations,
                           cost_limit=limit, even_returns=self.even_returns, seed=seed)
            for name, (settings, taught) in variants(config.discriminator).items():
                if name in self.variants and (name, dataset, seed) not in told:
                    quality = self._quality(split, dataclasses.replace(config, discriminator=settings), seed, taught)
                    append_quality(self.discriminators, (name, dataset, seed, *quality.values()))
            for method in self.methods:
                if (method, dataset, seed, limit) not in done:
                    rows.append(self._row(method, split, dataset, seed, limit, config))
                    append(self.out, rows[-1])
                    write_table(self.out.with_suffix(".md"), rows)
        return {"results": str(self.out), "discriminators": str(self.discriminators)}

    def _row(self, method: str, split: Path, dataset: str, seed: int, limit: float, config: DspoConfig) -> Row:
        if method not in OURS:
            parts = read_split(split)
            assert isinstance(parts.safe, DsrlDataset)
            assert isinstance(parts.unlabelled, DsrlDataset)
            name, alone = BASELINES[method]
            data = parts.safe if alone else together(parts.safe, parts.unlabelled)
            job = Job(name, dataset, seed, limit, self.steps, self.episodes, split.parent / method, self.batch,
                      self.device)
            row = dataclasses.replace(run_job(job, data), method=method)
            # Every method is scaled by the returns of the whole dataset.
            low, high = data.returns.min(), data.returns.max()
            return dataclasses.replace(row, normalized_reward=self._scaled(
                dataset, low + row.normalized_reward * (high - low)))
        torch.set_num_threads(1)
        settings, _ = variants(config.discriminator)[OURS[method]]
        folder, config = split.parent / method, dataclasses.replace(config, discriminator=settings)
        if method == "dspo_recalled":
            config = recalled(config)
        device = check_device(self.device)
        if method == "dspo_ddpm":
            share_diffusion(DspoRun(split, split.parent / "dspo", config, seed, device, progress=False), folder)
            config = sampled_in_all_steps(config)
        DspoRun(split, folder, config, seed, device, progress=False).run()
        policy, env = load_policy(folder, self.device), TASKS[dataset].make_env()
        try:
            results = [rollout(env, policy, number) for number in range(self.episodes)]
        finally:
            env.close()
        reward, cost = np.mean([[result.reward, result.cost] for result in results], 0)
        return Row(method, dataset, seed, limit, self._scaled(dataset, float(reward)),
                   normalized_cost(float(cost), limit), self.episodes)

    def _require_settings(self) -> None:
        split = {name: getattr(self, name) for name in ("preset", "set", "demonstrations", "even_returns")}
        if self.methods:
            require_settings(self.out, "--out", split | {
                name: getattr(self, name) for name in ("steps", "batch", "episodes")})
        if self.variants:
            require_settings(self.discriminators, "--discriminators", split | {"target_cost": self.target_cost})

    def _scaled(self, dataset: str, value: float) -> float:
        returns = read_dsrl(self.data / f"{dataset}.hdf5").returns
        return normalized_reward(value, float(returns.min()), float(returns.max()))

    def _quality(self, split: Path, config: DspoConfig, seed: int, taught: bool) -> dict[str, float]:
        """Of the unlabelled trajectories; of those that were not taught, where the truth of some was."""
        trajectories, truth = DspoRun(split, split.parent, config, seed).trajectories, read_truth(split)
        stage, asked = DiscriminatorStage(trajectories.specs, config, seed, self.device), ~trajectories.safe
        stage.fit(trajectories)
        shown = trajectories
        if taught:
            order = np.random.default_rng(seed).permutation(len(trajectories))
            count = round(_TRAINING_SHARE * len(order))
            shown = subset(dataclasses.replace(trajectories, safe=truth), np.sort(order[:count]))
            asked = np.isin(np.arange(len(order)), order[count:])
        settings = config.discriminator
        train_offline(stage, stage.source(shown), settings.steps, settings.batch, settings.length, seed,
                      progress=False)
        signals = np.array([signal for signal, _ in stage.judge(trajectories, held_out=not taught)])
        threshold = 0.5 if taught else float(signals[trajectories.safe].min())
        return discriminator_quality(signals[asked], truth[asked], threshold).to_json()


def sampled_in_all_steps(config: DspoConfig) -> DspoConfig:
    """The same diffusion, asked by DDPM."""
    return dataclasses.replace(config, diffusion=dataclasses.replace(
        config.diffusion, sampling_steps=config.diffusion.diffusion_steps, sampling_eta=1.0))


def share_diffusion(run: DspoRun, folder: Path) -> None:
    """Gives another run the discriminator, signals and diffusion of `run`, which are trained where they are missing."""
    run.run(["discriminator", "label", "diffusion"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("discriminator", SIGNALS, "diffusion"):
        source, partial = run.out / name, folder / f".{name}.tmp"
        if (folder / name).exists():
            continue
        if source.is_dir():
            shutil.copytree(source, partial, dirs_exist_ok=True)
        else:
            shutil.copy(source, partial)
        partial.rename(folder / name)  # at once: a copy that was interrupted is not taken for a whole one


def subset(trajectories: Trajectories, chosen: np.ndarray) -> Trajectories:
    """Some of the trajectories, in the order of `chosen`."""
    rows = np.concatenate([np.arange(trajectories.starts[episode], trajectories.starts[episode + 1])
                           for episode in chosen])
    return dataclasses.replace(
        trajectories, states=trajectories.states[rows], actions=trajectories.actions[rows],
        starts=np.concatenate([[0], np.cumsum(trajectories.lengths[chosen])]), returns=trajectories.returns[chosen],
        safe=trajectories.safe[chosen])
