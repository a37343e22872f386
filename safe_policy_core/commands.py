"""`safe-policy pretrain`, `finetune` and `evaluate`."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from tqdm import tqdm

from safe_policy_core.checkpoint import RUN_FOLDER, annotate_checkpoint, find_checkpoint, read_manifest
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.dsrl_tasks import named_task
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.data.sources import open_data
from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.evaluation import EpisodeResult, rollout, summarize
from safe_policy_core.interfaces import RobotEnv, Specs
from safe_policy_core.methods.overrides import override, preset
from safe_policy_core.methods.registry import config_module, learner_class, load_learner, load_policy, make_learner
from safe_policy_core.targets import set_target_cost
from safe_policy_core.training.offline import train_offline
from safe_policy_core.training.online import FineTuner, finetune
from safe_policy_core.training.preparation import calibrated
from safe_policy_core.training.session import FinetuneSession
from safe_policy_core.training.steps import Precision


@dataclass
class Pretrain:
    """Train a method offline on recorded episodes."""

    method: tyro.conf.Positional[str]
    """A name in `safe_policy_core.methods.registry.METHODS`: fosp, bc (behaviour cloning), dt, cdt, qpt, ..."""

    data: tuple[Path, ...]
    """Episode files (*.h5) or folders of them; or one DSRL file, by path or by its task (PointGoal1)."""

    out: Path
    """Folder of the run: `checkpoint` and `metrics.jsonl`."""

    steps: int | None = None
    """Gradient steps; by default 3000. A method with stages has its own (--set)."""

    preset: str = "small"
    """Named configuration of the method (fosp: small, tabletop, full; bc: small, all)."""

    set: tuple[str, ...] = ()
    """Single settings of the configuration: name=value ..."""

    init: Path | None = None
    """Start from the weights and the configuration of this checkpoint. What it had measured on its own data stays too:
    the scales of observations, rewards and costs, and what is asked for. On data of another scale, train anew."""

    batch: int | None = None
    """Sequences of a batch; by default what suits the method."""

    length: int | None = None
    """Rows of a sequence; by default what suits the method."""

    seed: int = 0
    device: str = "cpu"
    """Torch device."""

    precision: Precision = "float32"
    """Of matrix products. bfloat16 trains large networks quicker on a GPU, and on a CPU that has it."""

    checkpoint_every: int = 500
    """Gradient steps between checkpoints."""

    resume: bool = False
    """Go on where an interrupted run with the same `--out` stopped."""

    skip_broken: bool = False
    """Leave out episode files that cannot be read; without it they are an error."""

    export: Path | None = None
    """Folder that in the end also gets the weights alone, small enough to share (FOSP). With --resume of a finished
    run nothing else happens."""

    def run(self) -> dict[str, Any]:
        """Trains. Returns where the checkpoint is, and the last metrics."""
        require_positive(steps=self.steps, checkpoint_every=self.checkpoint_every, batch=self.batch, length=self.length)
        device = check_device(self.device)
        if self.init is not None and (self.set or self.preset != "small"):
            raise ConfigurationError("init: a checkpoint brings its own configuration; leave out preset and set")
        config = override(preset(self.method, self.preset), self.set)
        checkpoint = self.out / RUN_FOLDER
        if checkpoint.exists() and not self.resume:
            raise ConfigurationError(f"out: {checkpoint} exists; resume it with --resume, or name another folder")
        if self.export is not None and not hasattr(learner_class(self.method), "export"):
            raise ConfigurationError(f"export: {self.method} has no small form; share {checkpoint}")
        if (in_stages := getattr(learner_class(self.method), "pretrain", None)) is not None:
            return {"method": self.method, **self._in_stages(in_stages, config, device)}
        data, steps = open_data(self.data, self.skip_broken), self.steps or 3000
        if self.init is None:
            config = calibrated(config, data) if isinstance(data, EpisodeStore) else config
            learner = make_learner(self.method, data.specs, config, self.seed, device)
        else:
            found = read_manifest(self.init)["method"]
            if found != self.method:
                raise ConfigurationError(f"init: {self.init} is of method {found!r}, expected {self.method!r}")
            learner = load_learner(self.init, device)
        batch, length = sequence_sizes(self.method, self.batch, self.length)
        metrics = train_offline(learner, data, steps, batch, length, self.seed, checkpoint,
                                self.out / "metrics.jsonl", self.resume, checkpoint_every=self.checkpoint_every,
                                command=command_line(), precision=self.precision)
        if self.export is not None:
            learner.export(self.export)  # type: ignore[attr-defined]
            made = read_manifest(checkpoint)
            annotate_checkpoint(self.export, command=made["command"], data_hash=made["data_hash"])
        return {"method": self.method, "checkpoint": str(checkpoint), "log": str(self.out / "metrics.jsonl"),
                "sha256": read_manifest(checkpoint)["sha256"], "steps": steps, "episodes": len(data),
                "frames": data.rows, "broken": [] if isinstance(data, DsrlDataset) else sorted(map(str, data.broken)),
                "metrics": metrics}

    def _in_stages(self, pretrain: Callable[..., dict[str, Any]], config: Any, device: str) -> dict[str, Any]:
        """For a method that trains several models one after the other."""
        for name in ("steps", "batch", "length", "init"):
            if getattr(self, name) is not None:
                raise ConfigurationError(f"{name}: {self.method} trains in stages; give their settings by --set")
        if self.precision != "float32":
            raise ConfigurationError(f"precision: {self.method} trains in stages, in float32 only")
        if len(self.data) != 1:
            raise ConfigurationError(f"data: expected one folder of `dataset split-safe`, got {len(self.data)}")
        return pretrain(self.data[0], self.out, config, self.seed, device, self.resume, self.checkpoint_every,
                        command_line())


@dataclass
class Evaluate:
    """Success, violations and cost of a policy, with exact 95% intervals."""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint folder, or the folder of the run that made it."""

    task: str = "original"
    """original, obstacle_shape, target_shape, more_obstacles, random_layout, or a Safety-Gymnasium id. One of DSRL's
    tasks (PointGoal1 or OfflinePointGoal1Gymnasium-v0) is evaluated in its simulator, and normalized_reward and
    normalized_cost are added, by DSRL's constants and the target cost that the policy had."""

    episodes: int = 20
    seed: int = 0
    """The episodes have this seed and the following ones."""

    stochastic: bool = False
    """Draw actions, as in fine-tuning, instead of taking the most likely."""

    target_cost: float | None = None
    """Cost that an episode may have, for methods that take it without training (cdt, qpt); by default their own."""

    target_return: float | None = None
    """Return to ask for beside it; by default what few of the affordable episodes exceed."""

    device: str = "cpu"
    """Torch device."""

    env: Literal["direct", "ros"] = "direct"
    """direct: faster than real time, in this process. ros: on the arm of the running ROS graph, through the gate."""

    out: Path | None = None
    """ros: folder for the recorded episodes."""

    cost_budget: float | None = None
    """ros: cost of all episodes together at which the running one is ended and no other begins."""

    arm: bool = False
    """ros: arm the safety gate first; without it somebody else must."""

    def run(self) -> dict[str, Any]:
        """Evaluates. Returns the summary and one row an episode."""
        require_positive(episodes=self.episodes)
        if self.env == "ros":
            return self._over_ros()
        for name, value in (("out", self.out), ("cost_budget", self.cost_budget), ("arm", self.arm or None)):
            if value is not None:
                raise ConfigurationError(f"{name}: only of an arm; add --env ros or leave it out")
        device = check_device(self.device)
        torch.set_num_threads(1)  # one observation at a time: more threads only wait for each other
        manifest = read_manifest(self.checkpoint)
        policy = load_policy(self.checkpoint, device)
        set_target_cost(policy, self.target_cost, self.target_return)
        dsrl = named_task(self.task)
        env = open_env(dsrl.simulator_id if dsrl else self.task, policy.specs)
        results: list[EpisodeResult] = []
        try:
            with tqdm(range(self.seed, self.seed + self.episodes), desc="evaluate", unit="episode") as bar:
                for seed in bar:
                    results.append(rollout(env, policy, seed, not self.stochastic))
                    bar.set_postfix(success=sum(result.success for result in results),
                                    violations=sum(result.violation for result in results))
        finally:
            env.close()
        rows = [{"seed": result.seed, "steps": result.steps, "episode_return": result.reward,
                 "episode_cost": result.cost, "success": result.success, "violation": result.violation}
                for result in results]
        summary, scores = summarize(results), dict[str, float]()
        if dsrl is not None:
            threshold = getattr(policy, "target_cost", manifest["config"].get("cost_limit"))
            scores = dsrl.scores(summary.reward, summary.cost, threshold)
        return {"task": self.task, "checkpoint": str(self.checkpoint), "method": manifest["method"],
                "sha256": manifest["sha256"], "first_seed": self.seed, "deterministic": not self.stochastic,
                "target_cost": self.target_cost, **summary.to_json(), **scores, "rows": rows}

    def _over_ros(self) -> dict[str, Any]:
        if self.out is None:
            raise ConfigurationError("out: expected a folder for the recorded episodes with --env ros")
        if self.target_return is not None or self.device != "cpu":
            raise ConfigurationError("target_return, device: not with --env ros; policy_node asks for what few of the "
                                     "affordable episodes exceed, on its own device")
        # Only where somebody drives an arm: ROS is not needed otherwise.
        over_ros = importlib.import_module("safe_policy_ros.commands").evaluate_over_ros
        return over_ros(self.checkpoint, self.task, self.episodes, self.out, self.seed, self.target_cost,
                        not self.stochastic, self.cost_budget, self.arm)


@dataclass
class Finetune:
    """Go on training online, in the simulator or on the arm."""

    checkpoint: tyro.conf.Positional[Path]
    """Pretrained checkpoint, or the folder of the run that made it."""

    task: tyro.conf.Positional[str]
    """original, obstacle_shape, target_shape, more_obstacles, random_layout, or a Safety-Gymnasium id."""

    data: tuple[Path, ...]
    """Offline episodes: files (*.h5) or folders. They stay in the replay buffer."""

    out: Path
    """Folder of the run: `checkpoint`, `episodes`, `finetune.jsonl`."""

    env: Literal["direct", "ros"] = "direct"
    """direct: faster than real time, in this process. ros: the running ROS graph (simulated or real arm)."""

    arm: bool = False
    """ros: arm the safety gate first; without it somebody else must."""

    episodes: int = 20
    updates: int = 50
    """Gradient steps after each episode."""

    seed: int = 100_000
    """The episodes have this seed and the following ones; `evaluate` begins at 0, with other scenes."""

    cost_budget: float | None = None
    """Stop when the costs of the episodes add up to more. A stopped session goes on by --resume with a larger one."""

    resume: bool = False
    """Go on with the session in `--out`, after an interruption or a spent budget, at the same episode."""

    violation_tolerance: float = 0.05
    """New weights are thrown away when the violation probability that they see in recorded scenes is larger than
    that of the first ones by more than this."""

    batch: int | None = None
    """Sequences of a batch; by default what suits the method."""

    length: int | None = None
    """Rows of a sequence; by default what suits the method."""

    online_weight: float = 4.0
    """How much more often than offline ones the new episodes are sampled."""

    device: str = "cpu"
    """Torch device."""

    def run(self) -> dict[str, Any]:
        """Fine-tunes. Returns one row an episode, sums, and the new checkpoint."""
        require_positive(episodes=self.episodes, batch=self.batch, length=self.length,
                         online_weight=self.online_weight)
        if self.arm and self.env != "ros":
            raise ConfigurationError("arm: only the ROS graph has a gate to arm; add --env ros or leave --arm out")
        if self.updates < 0:
            raise ConfigurationError(f"updates: expected 0 or more, got {self.updates}")
        source = find_checkpoint(self.checkpoint)
        if self.out.resolve() in (source.resolve(), source.resolve().parent):
            raise ConfigurationError(f"out: {self.out} is the checkpoint to start from; name another folder")
        if not self.resume and (self.out / RUN_FOLDER).exists():
            raise ConfigurationError(f"out: {self.out / RUN_FOLDER} exists; go on with its session by --resume, or "
                                     "name another folder")
        result = self._over_ros(source) if self.env == "ros" else self._direct(source)
        return {"task": self.task, "env": self.env, "from": str(self.checkpoint), "out": str(self.out), **result}

    def _over_ros(self, source: Path) -> dict[str, Any]:
        # By name: the core does not depend on the ROS packages, which only exist where the workspace is built.
        over_ros = importlib.import_module("safe_policy_ros.commands").finetune_over_ros
        return over_ros(self.task, self.episodes, self.updates, source, self.out, seed=self.seed, data=self.data,
                        cost_budget=self.cost_budget, arm=self.arm, session=self._session(source),
                        violation_tolerance=self.violation_tolerance)

    def _session(self, source: Path) -> FinetuneSession:
        identity = {"task": self.task, "env": self.env, "seed": self.seed, "updates": self.updates,
                    "checkpoint_sha256": read_manifest(source)["sha256"],
                    "data": [str(path.resolve()) for path in self.data]}
        if self.resume:
            return FinetuneSession.resume(self.out, identity)
        return FinetuneSession.begin(self.out, identity, str(source.resolve()))

    def _direct(self, source: Path) -> dict[str, Any]:
        device, store = check_device(self.device), EpisodeStore(self.data)
        origin = read_manifest(source)
        batch, length = sequence_sizes(origin["method"], self.batch, self.length)
        session = self._session(source)
        # Before the first round is saved there is nothing to go on from but the beginning.
        resume = self.resume and (self.out / RUN_FOLDER).exists()
        tuner = FineTuner(load_learner(self.out if resume else source, device), store, self.out, batch=batch,
                          length=length, seed=self.seed, online_weight=self.online_weight, command=command_line(),
                          violation_tolerance=self.violation_tolerance, resume=resume, episodes=session.paths(),
                          origin=origin["sha256"])
        env = open_env(self.task, tuner.learner.specs)
        seen = {"success": 0, "violations": 0}
        try:
            with tqdm(total=self.episodes, initial=len(session.rows), desc="finetune", unit="episode") as bar:
                def show(row: dict[str, Any]) -> None:
                    seen["success"] += row["success"]
                    seen["violations"] += row["violation"]
                    bar.set_postfix(seen, refresh=False)
                    bar.update()

                return finetune(env, tuner, self.episodes, self.seed, self.updates, self.cost_budget,
                                {"task": self.task, "operator": "policy"}, show, session)
        finally:
            env.close()


def open_env(task: str, specs: Specs) -> RobotEnv:
    """The environment, if a policy of `specs` can act in it. Raises `ConfigurationError` naming the difference."""
    env = make_env(task)
    if difference := env.specs.difference(specs):
        env.close()
        raise ConfigurationError(f"task: {task} does not fit the checkpoint: {difference} (environment against "
                                 "checkpoint)")
    return env


def sequence_sizes(method: str, batch: int | None, length: int | None) -> tuple[int, int]:
    """Sequences and rows of a batch: as asked, or as the method's config module has them."""
    sizes = {"BATCH": 16, "LENGTH": 16} | vars(config_module(method))
    return batch or sizes["BATCH"], length or sizes["LENGTH"]


def check_device(name: str) -> str:
    """The device's name. Raises `ConfigurationError` when torch does not have it here."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device: {name!r} is not available here ({str(error).splitlines()[0]}); "
                                 "expected cpu or, with a GPU, cuda") from error
    return name


def require_positive(**values: float | None) -> None:
    """Raises `ConfigurationError` naming the first value that is not above zero; None is left to a default."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigurationError(f"{name}: expected a number above 0, got {value}")


def command_line() -> str:
    """How this process was called, for the manifest."""
    return shlex.join(["safe-policy", *sys.argv[1:]])
