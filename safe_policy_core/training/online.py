"""Online fine-tuning: learning between episodes, with weights that are checked before they may act."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.data.episodes import Episode, EpisodeStore, write_episode
from safe_policy_core.data.virtual_obstacles import add_with_copies, with_copies
from safe_policy_core.errors import CheckpointError, ConfigurationError, UserError
from safe_policy_core.evaluation import EpisodeResult, rollout
from safe_policy_core.interfaces import Learner, Policy, RobotEnv
from safe_policy_core.training.metrics import Means
from safe_policy_core.training.offline import save_training
from safe_policy_core.training.preparation import obstacle_artist
from safe_policy_core.training.session import EPISODES, FinetuneSession
from safe_policy_core.training.steps import ONLINE, SelectsEpisodes, selected, take_step
from safe_policy_core.training.weight_check import VIOLATION_TOLERANCE, Judgement, WeightCheck

log = logging.getLogger(__name__)

REFERENCE_OBSERVATIONS = 32
"""On how many recorded observations new weights must act sensibly before they are used."""


@runtime_checkable
class StartsFineTuning(Protocol):
    """A learner that prepares for fine-tuning, for instance by freezing its offline actor (FOSP eq. 21).

    Called at every start; one that was saved in the middle of fine-tuning keeps its state.
    """

    def start_fine_tuning(self) -> None: ...


class FineTuner:
    """A learner with its replay buffer and no environment: the same one serves a simulator and the ROS graph.

    directory: receives `checkpoint` after every `learn`; the last one there is known to be good.
    batch, length: sequences per update and rows per sequence. online_weight: how much more often
    than offline ones the collected episodes are sampled. violation_tolerance: by how much the mean
    violation probability on the reference observations may rise. resume: `learner` was loaded from
    `directory`'s checkpoint and goes on with its counts and its first judgement; `episodes` were
    collected before and are in the replay buffer again. origin: SHA-256 of the weights that fine-tuning
    began with, kept in every checkpoint. Raises `DatasetError` when the episodes do
    not fit the learner, `CheckpointError` when the checkpoint to resume is not one of fine-tuning.
    """

    def __init__(self, learner: Learner, store: EpisodeStore, directory: Path | str, *, batch: int = 16,
                 length: int = 16, seed: int = 0, online_weight: float = 1.0, command: str = "",
                 violation_tolerance: float = VIOLATION_TOLERANCE, resume: bool = False,
                 episodes: Sequence[Path | str] = (), origin: str = "") -> None:
        self.learner, self.directory = learner, Path(directory)
        offline = selected(store, learner)
        self._artist = obstacle_artist(learner, offline)
        self._store = offline if self._artist is None else with_copies(offline, self._artist)
        self._batch, self._length, self._seed = batch, length, seed
        self._online_weight, self._command, self._origin = online_weight, command, origin
        self._updates = self._episodes = 0
        self.last_failure = ""
        """Why the last `learn` was rolled back; "" when it was not."""
        rng = np.random.default_rng((seed, ONLINE))
        # Fixed from the start, so that later weights are judged on the same observations.
        reference = self._store.sample(REFERENCE_OBSERVATIONS, 1, rng)
        observations = [{name: reference[name][index, 0] for name in learner.specs.observation}
                        for index in range(REFERENCE_OBSERVATIONS)]
        if isinstance(learner, StartsFineTuning):
            learner.start_fine_tuning()
        first = None
        if resume:
            before = _online_manifest(self.checkpoint)
            self._updates, first = int(before["updates"]), Judgement.from_json(before["first"])
        self._check = WeightCheck(learner.policy(), observations, first, violation_tolerance)
        for path in episodes:
            self.add_episode(path)
        self.save()

    @property
    def checkpoint(self) -> Path:
        """The folder with the newest weights that passed the check."""
        return self.directory / "checkpoint"

    def policy(self) -> Policy:
        """The current policy, sharing the learner's weights."""
        return self.learner.policy()

    def add_episode(self, source: Episode | Path | str) -> None:
        """Adds a collected episode to the replay buffer. Raises `DatasetError`."""
        single = EpisodeStore()
        single.add(source)
        if isinstance(self.learner, SelectsEpisodes) and not self.learner.select_episode(single.summaries[0]):
            return
        if self._artist is None:
            self._store.add(source, self._online_weight)
        else:
            add_with_copies(self._store, single, 0, self._artist, self._online_weight)
        self._episodes += 1

    def learn(self, updates: int, on_update: Callable[[int, dict[str, float]], None] | None = None
              ) -> dict[str, float]:
        """Takes updates and saves the new weights. Returns mean metrics.

        New weights that are not finite, or that do not pass `WeightCheck` on recorded observations,
        are thrown away: the learner goes back to the last good ones and the metric `rolled_back` is 1.
        """
        means, failure = Means(), ""
        try:
            for number in range(updates):
                step = self._updates + number + 1
                metrics = take_step(self.learner, self._store, self._batch, self._length, self._seed, ONLINE, step)
                means.add(metrics)
                if on_update is not None:
                    on_update(number + 1, metrics)
            judgement = self._check.require(self.learner.policy())
            if judgement.violation is not None:
                means.add({"reference_violation": judgement.violation})
            # Also after a failure the next attempt must draw other batches.
            self._updates += updates
            self.save()
        except (FloatingPointError, UserError) as error:
            failure = str(error)
            self._updates += updates
            self.learner.load(self.checkpoint)
        self.last_failure = failure
        if failure:
            log.warning("new weights thrown away: %s", failure)
        return means.take() | {"rolled_back": float(bool(failure))}

    def save(self) -> None:
        """Writes `checkpoint`. Raises `CheckpointError` for weights that are not finite."""
        save_training(self.learner, self.checkpoint, self._command, self._store.data_hash(),
                      {"fine_tuning": {"updates": self._updates, "episodes": self._episodes, "seed": self._seed,
                                  "origin": self._origin, "first": self._check.first.to_json()}})


def _online_manifest(checkpoint: Path) -> dict[str, Any]:
    """What `FineTuner.save` wrote. Raises `CheckpointError` for a checkpoint that fine-tuning did not make."""
    online = read_manifest(checkpoint)["extra"].get("fine_tuning")
    if not isinstance(online, dict) or not {"updates", "first"} <= online.keys():
        raise CheckpointError(f"{checkpoint}: extra.fine_tuning: expected updates and first, got {online!r:.80}; it "
                              "was not made by fine-tuning, so it cannot be resumed")
    return online


def finetune(env: RobotEnv, fine_tuner: FineTuner, episodes: int, first_seed: int = 0, updates: int = 50,
             cost_budget: float | None = None, metadata: dict[str, Any] | None = None,
             on_episode: Callable[[dict[str, Any]], None] | None = None, session: FinetuneSession | None = None
             ) -> dict[str, Any]:
    """Acts and learns in turns, in an environment of this process.

    Seeds go from `first_seed` upwards; after each episode it is kept in the tuner's directory
    (`episodes`, `finetune.jsonl`), added to the replay buffer, and `updates` gradient steps follow.
    cost_budget: no further episode starts once the episodes' costs add up to more. metadata: for
    the episode files. on_episode: called with each row. session: one to go on with, whose learned
    episodes are in the replay buffer already. Returns the rows and their sums, `cost_regret` as in
    FOSP D.2, and `stopped` with the reason for an early end.
    """
    if episodes < 1 or updates < 0:
        raise ConfigurationError(f"episodes, updates: expected at least 1 and 0, got {episodes} and {updates}")
    session = session or FinetuneSession.begin(fine_tuner.directory, {})

    def learn() -> None:
        assert session is not None and session.pending is not None
        fine_tuner.add_episode(session.pending["path"])
        outcome = {"metrics": fine_tuner.learn(updates), "learning_message": fine_tuner.last_failure}
        row = session.learned(outcome, str(fine_tuner.checkpoint))
        if on_episode is not None:
            on_episode(row)

    if session.pending is not None:
        learn()
    for path in session.unknown():
        session.recover(path)
        learn()
    stopped = ""
    while session.count < episodes:
        if stopped := budget_spent(session, episodes, cost_budget):
            log.warning(stopped)
            break
        seed = first_seed + session.count
        result = rollout(env, fine_tuner.policy(), seed, deterministic=False, record=True, metadata=metadata)
        path = fine_tuner.directory / EPISODES / f"seed_{seed:08d}.h5"
        assert result.episode is not None  # asked for by record=True
        write_episode(path, result.episode)
        session.acted({"seed": seed, "steps": result.steps, "episode_return": result.reward,
                       "episode_cost": result.cost, "success": result.success, "violation": result.violation,
                       "terminated": result.terminated, "truncated": result.truncated,
                       "online_share": _online_share(result), "path": str(path), "message": ""})
        learn()
    rows = session.rows
    steps = sum(row["steps"] for row in rows)
    return {"episodes": rows, "count": len(rows), "successes": sum(row["success"] for row in rows),
            "violations": sum(row["violation"] for row in rows), "steps": steps, "total_cost": session.spent,
            "reward": sum(row["episode_return"] for row in rows) / max(1, len(rows)),
            "cost_regret": session.spent / max(1, steps), "updates": len(rows) * updates, "stopped": stopped,
            "checkpoint": str(fine_tuner.checkpoint), "gate": None}


def budget_spent(session: FinetuneSession, episodes: int, cost_budget: float | None) -> str:
    """Why no further episode may start, or "". The session can go on with a larger budget."""
    if cost_budget is None or session.spent <= cost_budget:
        return ""
    return (f"cost budget: {session.spent:g} of {cost_budget:g} spent after {session.count} of {episodes} episodes; "
            "go on by --resume with a larger one")


def _online_share(result: EpisodeResult) -> float | None:
    """Share of the new policy; None where no two policies take turns."""
    if not {"online", "offline", "map"} & result.chosen_policies.keys():
        return None
    return result.chosen_policies.get("online", 0) / result.steps
