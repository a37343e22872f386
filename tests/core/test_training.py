import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_policy_core.checkpoint import load_checkpoint, read_manifest
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import CheckpointError, DatasetError
from safe_policy_core.interfaces import Learner, Specs
from safe_policy_core.methods.bc import BcConfig, BcLearner
from safe_policy_core.training.metrics import Means, append_row, keep_rows_until
from safe_policy_core.training.offline import train_offline
from safe_policy_core.training.online import FineTuner, finetune
from tests.core.point_env import SPECS, PointEnv, ScriptedPolicy, demonstrations, image_episode

CONFIG = BcConfig(units=16, layers=1)


def store_of(count: int = 6) -> EpisodeStore:
    store = EpisodeStore()
    for episode in demonstrations(count):
        store.add(episode)
    return store


class Interrupted(Exception):
    """Stands for Ctrl-C or a kill."""


class StoppingLearner(BcLearner):
    """Behaviour cloning that is interrupted in its n-th update, and breaks its own weights when told to."""

    stop_at: int | None = None
    break_weights = False

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        if self.step + 1 == self.stop_at:
            raise Interrupted
        metrics = super().update(batch)
        if self.break_weights:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        return metrics


def weights(learner: BcLearner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def train(learner: Learner, directory: Path, resume: bool = False, steps: int = 40, seed: int = 3) -> dict[str, float]:
    return train_offline(learner, store_of(), steps, 4, 5, seed, directory / "checkpoint", directory / "log.jsonl",
                         resume, progress=False, checkpoint_every=16, log_every=10)


def test_an_interrupted_and_resumed_run_gives_the_same_numbers(tmp_path: Path) -> None:
    whole = BcLearner(SPECS, CONFIG, seed=1)
    whole_metrics = train(whole, tmp_path / "whole")

    first = StoppingLearner(SPECS, CONFIG, seed=1)
    first.stop_at = 30
    with pytest.raises(Interrupted):
        train(first, tmp_path / "cut")
    assert read_manifest(tmp_path / "cut")["extra"]["offline"]["step"] == 16
    torch.randn(7)  # whatever else drew random numbers in between
    second = BcLearner(SPECS, CONFIG, seed=1)
    second_metrics = train(second, tmp_path / "cut", resume=True)

    assert_same(weights(whole), weights(second))
    assert whole_metrics == second_metrics
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == [10, 16, 20, 30, 32, 40]
    tensors = [load_checkpoint(tmp_path / name)[0] for name in ("whole", "cut")]
    assert_same(*tensors)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    learner = BcLearner(SPECS, CONFIG)
    train(learner, tmp_path)
    again = BcLearner(SPECS, CONFIG)
    train(again, tmp_path, resume=True)
    assert_same(weights(learner), weights(again))


def test_resuming_without_a_checkpoint_starts_at_the_beginning(tmp_path: Path) -> None:
    learner, other = BcLearner(SPECS, CONFIG), BcLearner(SPECS, CONFIG)
    train(learner, tmp_path / "a", resume=True)
    train(other, tmp_path / "b")
    assert_same(weights(learner), weights(other))


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    train(BcLearner(SPECS, CONFIG), tmp_path)
    with pytest.raises(CheckpointError, match="seed: the run to resume has 3, this one 4"):
        train(BcLearner(SPECS, CONFIG), tmp_path, resume=True, seed=4)
    BcLearner(SPECS, CONFIG).save(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="extra offline: missing"):
        train(BcLearner(SPECS, CONFIG), tmp_path, resume=True)


def test_other_seeds_draw_other_batches(tmp_path: Path) -> None:
    learners = [BcLearner(SPECS, CONFIG), BcLearner(SPECS, CONFIG)]
    for seed, learner in enumerate(learners):
        train_offline(learner, store_of(), 5, 4, 5, seed, progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(weights(learners[0]).values(), weights(learners[1]).values(),
                                                     strict=True))


def test_the_manifest_says_what_it_was_made_of(tmp_path: Path) -> None:
    learner = BcLearner(SPECS, dataclasses.replace(CONFIG, only_successful=False, selection="all"))
    train_offline(learner, store_of(), 3, 2, 2, 0, tmp_path / "c", progress=False, command="safe-policy pretrain bc")
    manifest = read_manifest(tmp_path / "c")
    assert manifest["data_hash"] == store_of().data_hash()
    assert manifest["command"] == "safe-policy pretrain bc"
    assert manifest["step"] == 3


def test_episodes_of_other_specs_are_refused() -> None:
    other = Specs(SPECS.observation, SPECS.action, {"max_translation_step": 9.0})
    with pytest.raises(DatasetError, match="max_translation_step"):
        train_offline(BcLearner(other, CONFIG), store_of(), 1, 2, 2, progress=False)


def test_metrics_log(tmp_path: Path) -> None:
    means = Means()
    means.add({"loss": 1.0, "rare": 5.0})
    means.add({"loss": 2.0, "rare": float("nan")})
    assert means.take() == {"loss": 1.5, "rare": 5.0}
    assert means.take() == {}
    log = tmp_path / "deep" / "log.jsonl"
    for step in (1, 2, 3):
        append_row(log, {"step": step})
    with log.open("a") as file:
        file.write('{"step": 4, "lo')
    keep_rows_until(log, 2)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2]


# Online


def tuner_of(learner: Learner, directory: Path) -> FineTuner:
    return FineTuner(learner, store_of(), directory, batch=4, length=5, seed=2)


def test_learning_changes_and_saves_the_weights(tmp_path: Path) -> None:
    learner = BcLearner(SPECS, CONFIG)
    tuner = tuner_of(learner, tmp_path)
    before = weights(learner)
    heard = []
    metrics = tuner.learn(5, lambda number, metrics: heard.append((number, metrics["loss"])))
    assert metrics["rolled_back"] == 0
    assert [number for number, _ in heard] == [1, 2, 3, 4, 5]
    assert metrics["loss"] == pytest.approx(np.mean([loss for _, loss in heard]))
    assert any(not torch.equal(value, before[name]) for name, value in weights(learner).items())
    saved = BcLearner(SPECS, CONFIG)
    saved.load(tuner.checkpoint)
    assert_same(weights(learner), weights(saved))
    assert read_manifest(tuner.checkpoint)["extra"]["fine_tuning"] == {
        "updates": 5, "episodes": 0, "seed": 2, "origin": "",
        "first": {"value": None, "cost_value": None, "violation": None}}


@pytest.mark.parametrize("how", ["weights", "loss"])
def test_bad_weights_are_thrown_away(tmp_path: Path, how: str) -> None:
    learner = StoppingLearner(SPECS, CONFIG)
    tuner = tuner_of(learner, tmp_path)
    tuner.learn(3)
    good = weights(learner)
    if how == "weights":
        learner.break_weights = True
    else:
        tuner._store._columns["next_action"][:] = np.nan
    metrics = tuner.learn(2)
    assert metrics["rolled_back"] == 1
    assert tuner.last_failure
    assert_same(weights(learner), good)
    saved = BcLearner(SPECS, CONFIG)
    saved.load(tuner.checkpoint)
    assert_same(weights(saved), good)
    assert np.isfinite(learner.policy().act({"vector": np.zeros(2, np.float32)}).action).all()


def test_collected_episodes_join_the_replay_buffer(tmp_path: Path) -> None:
    tuner = tuner_of(BcLearner(SPECS, dataclasses.replace(CONFIG, selection="all", only_successful=False)), tmp_path)
    before = tuner._store.rows
    failed = demonstrations(1, ScriptedPolicy(speed=-0.5))[0]
    tuner.add_episode(failed)
    assert tuner._store.rows == before + len(failed) + 1
    choosy = tuner_of(BcLearner(SPECS, CONFIG), tmp_path)
    choosy.add_episode(failed)  # BC-Safe does not imitate an episode with cost
    assert choosy._store.rows == before
    with pytest.raises(DatasetError, match="specs"):
        tuner.add_episode(image_episode())


def test_finetuning_records_learns_and_reports(tmp_path: Path) -> None:
    learner = BcLearner(SPECS, CONFIG)
    tuner = tuner_of(learner, tmp_path)
    tuner.learn(300)
    rows = []
    result = finetune(PointEnv(), tuner, 4, first_seed=100, updates=3, metadata={"task": "point"},
                      on_episode=rows.append)
    assert result["episodes"] == rows
    assert [row["seed"] for row in rows] == [100, 101, 102, 103]
    assert result["successes"] == 4
    assert result["updates"] == 12
    assert result["stopped"] == ""
    assert rows[0]["online_share"] is None
    assert len(EpisodeStore(tmp_path / "episodes")) == 4
    assert len((tmp_path / "finetune.jsonl").read_text().splitlines()) == 4
    assert read_manifest(result["checkpoint"])["extra"]["fine_tuning"]["episodes"] == 4
    json.dumps(result)


class Reckless(BcLearner):
    """Its policy drives out of the safe region, whatever was learned."""

    def policy(self) -> ScriptedPolicy:  # type: ignore[override]
        return ScriptedPolicy(speed=-0.5)


def test_the_cost_budget_stops_finetuning(tmp_path: Path) -> None:
    result = finetune(PointEnv(), tuner_of(Reckless(SPECS, CONFIG), tmp_path), 10, updates=0, cost_budget=20)
    per_episode = result["episodes"][0]["episode_cost"]
    assert 0 < per_episode < 20
    assert result["total_cost"] > 20
    assert result["total_cost"] - result["episodes"][-1]["episode_cost"] <= 20
    assert result["stopped"].startswith("cost budget")
    assert result["violations"] == result["count"] < 10
    assert result["cost_regret"] == pytest.approx(result["total_cost"] / result["steps"])
    assert result["episodes"][0]["online_share"] == 0.5


def test_finetuning_needs_data_that_the_learner_wants(tmp_path: Path) -> None:
    store = EpisodeStore()
    store.add(demonstrations(1, ScriptedPolicy(speed=-0.5))[0])
    with pytest.raises(DatasetError, match="none of 1"):
        FineTuner(BcLearner(SPECS, CONFIG), store, tmp_path)
    assert not list(tmp_path.iterdir())
