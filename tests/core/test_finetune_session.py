"""Fine-tuning that is interrupted and goes on, and weights that may not act."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from safe_policy_core.data.episodes import write_episode
from safe_policy_core.errors import ConfigurationError, SpecError
from safe_policy_core.interfaces import ActionDecision, Observation
from safe_policy_core.methods.bc import BcConfig, BcLearner
from safe_policy_core.training.online import FineTuner, finetune
from safe_policy_core.training.session import STATE, FinetuneSession
from safe_policy_core.training.weight_check import Judgement, WeightCheck, WeightsRejected, judge
from tests.core.point_env import SPECS, PointEnv, ScriptedPolicy, demonstrations
from tests.core.test_training import CONFIG, Interrupted, StoppingLearner, store_of

IDENTITY = {"task": "point", "seed": 100}
EVERYTHING = BcConfig(units=16, layers=1, selection="all", only_successful=False)
OBSERVATIONS: list[Observation] = [{"vector": np.array([x, 0.5], np.float32)} for x in (-0.5, 0.0, 0.3)]


# Weights


class Opinionated(ScriptedPolicy):
    """Says of each observation what it was told to."""

    def __init__(self, value: float = 0.5, cost: float = 1.0, probability: float | None = 0.2, speed: float = 0.5):
        super().__init__(speed, probability)
        self.value, self.cost = value, cost

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        action = super().act(observation, deterministic).action
        return ActionDecision(action, self.value + float(observation["vector"][0]), self.cost, self.probability)


@pytest.mark.parametrize(("worse", "named"), [
    (Opinionated(value=40.0), r"value.*expected within.*got"), (Opinionated(value=-40.0), "value"),
    (Opinionated(cost=-9.0), "cost_value"), (Opinionated(value=float("nan")), "value.*finite"),
    (Opinionated(probability=float("inf")), "violation_probability.*finite"),
    (Opinionated(probability=0.26), "violation probability.*0.250.*0.260")])
def test_weights_whose_numbers_are_out_of_bounds_may_not_act(worse: Opinionated, named: str) -> None:
    check = WeightCheck(Opinionated(), OBSERVATIONS)
    with pytest.raises(WeightsRejected, match=named):
        check.require(worse)


@pytest.mark.parametrize("speed", [float("nan"), 1.01])
def test_weights_whose_actions_leave_the_spec_may_not_act(speed: float) -> None:
    with pytest.raises(SpecError, match="action"):
        judge(Opinionated(speed=speed), OBSERVATIONS)


def test_a_little_worse_and_anything_better_may_act() -> None:
    check = WeightCheck(Opinionated(), OBSERVATIONS)
    for policy in (Opinionated(probability=0.249), Opinionated(probability=0.0), Opinionated(value=1.5)):
        check.require(policy)
    assert check.require(Opinionated(probability=None)).violation is None


def test_small_steps_for_the_worse_do_not_add_up() -> None:
    check = WeightCheck(Opinionated(), OBSERVATIONS)
    check.require(Opinionated(probability=0.24))
    with pytest.raises(WeightsRejected):
        check.require(Opinionated(probability=0.28))


def test_a_resumed_session_is_judged_by_its_first_weights() -> None:
    first = Judgement.from_json(json.loads(json.dumps(judge(Opinionated(), OBSERVATIONS).to_json())))
    check = WeightCheck(Opinionated(probability=0.9), OBSERVATIONS, first)
    with pytest.raises(WeightsRejected):
        check.require(Opinionated(probability=0.9))


def test_rejected_weights_are_rolled_back(tmp_path: Path) -> None:
    class Worsening(BcLearner):
        def policy(self) -> Opinionated:  # type: ignore[override]
            return Opinionated(probability=0.2 + 0.1 * (self.step > 3))

    tuner = FineTuner(Worsening(SPECS, CONFIG), store_of(), tmp_path, batch=4, length=5)
    assert tuner.learn(3)["rolled_back"] == 0
    assert tuner.learn(1)["rolled_back"] == 1
    assert "violation probability" in tuner.last_failure
    assert tuner.learner.step == 3, "the last good weights act"
    loose = FineTuner(Worsening(SPECS, CONFIG), store_of(), tmp_path / "loose", batch=4, length=5,
                      violation_tolerance=0.2)
    assert loose.learn(5)["rolled_back"] == 0


# Sessions


def run(directory: Path, resume: bool, episodes: int = 4, learner: BcLearner | None = None, budget: float | None = None,
        policy: ScriptedPolicy | None = None) -> dict:
    session = FinetuneSession.resume(directory, IDENTITY) if resume else FinetuneSession.begin(directory, IDENTITY)
    learner = learner or BcLearner(SPECS, EVERYTHING)
    if resume:
        learner.load(directory / "checkpoint")
    if policy is not None:
        learner.policy = lambda: policy  # type: ignore[method-assign]
    tuner = FineTuner(learner, store_of(), directory, batch=4, length=5, seed=2, resume=resume,
                      episodes=session.paths())
    return finetune(PointEnv(), tuner, episodes, first_seed=100, updates=3, cost_budget=budget, session=session)


@pytest.mark.parametrize("stop_at", [4, 5, 9])
def test_a_crash_while_learning_repeats_no_episode(tmp_path: Path, stop_at: int) -> None:
    """stop_at: update in which it dies; the second and third episodes are in the third to ninth."""
    learner = StoppingLearner(SPECS, EVERYTHING)
    learner.stop_at = stop_at
    with pytest.raises(Interrupted):
        run(tmp_path, resume=False, learner=learner)
    ran = sorted(path.name for path in (tmp_path / "episodes").iterdir())
    result = run(tmp_path, resume=True)
    assert [row["seed"] for row in result["episodes"]] == [100, 101, 102, 103]
    assert sorted(path.name for path in (tmp_path / "episodes").iterdir())[:len(ran)] == ran
    assert len({row["path"] for row in result["episodes"]}) == 4
    assert [json.loads(line)["seed"] for line in (tmp_path / "finetune.jsonl").read_text().splitlines()] == [
        100, 101, 102, 103]
    online = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())["extra"]["fine_tuning"]
    assert online["updates"] == 12 and online["episodes"] == 4


def test_an_episode_of_which_only_the_file_is_left_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        def die(*_: object) -> None:
            raise Interrupted

        patch.setattr(FinetuneSession, "acted", die)
        run(tmp_path, resume=False)
    assert FinetuneSession.resume(tmp_path, IDENTITY).count == 0
    (tmp_path / "episodes" / "torn.h5").write_bytes(b"\x89HDF")
    result = run(tmp_path, resume=True)
    assert [row["seed"] for row in result["episodes"]] == [100, 101, 102, 103]
    assert "recovered" in result["episodes"][0]["message"]
    assert result["episodes"][0]["steps"] > 0


def test_a_spent_budget_pauses_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    away = ScriptedPolicy(speed=-0.5)
    first = run(tmp_path, resume=False, budget=20, policy=away)
    assert first["count"] < 4 and first["stopped"].startswith("cost budget")
    still = run(tmp_path, resume=True, budget=20, policy=away)
    assert still["count"] == first["count"] and still["stopped"]
    after = run(tmp_path, resume=True, budget=1000, policy=away)
    assert after["count"] == 4 and after["stopped"] == ""
    assert after["total_cost"] == sum(row["episode_cost"] for row in after["episodes"])


def test_a_session_is_not_begun_twice_nor_resumed_as_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no session"):
        FinetuneSession.resume(tmp_path, IDENTITY)
    FinetuneSession.begin(tmp_path, IDENTITY)
    with pytest.raises(ConfigurationError, match="--resume"):
        FinetuneSession.begin(tmp_path, IDENTITY)
    with pytest.raises(ConfigurationError, match=r"seed: .*100.*7"):
        FinetuneSession.resume(tmp_path, IDENTITY | {"seed": 7})
    (tmp_path / STATE).write_text('{"identity"')
    with pytest.raises(ConfigurationError, match="damaged"):
        FinetuneSession.resume(tmp_path, IDENTITY)


# What is learned from


def test_the_learner_gets_what_ran_where_a_person_took_over(tmp_path: Path) -> None:
    """The human's executed actions are the actions of the batch; what the policy would have done stays beside them."""
    seen: list[dict[str, np.ndarray]] = []

    class Listening(BcLearner):
        def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
            seen.append({name: np.array(value) for name, value in batch.items()})
            return super().update(batch)

    episode = demonstrations(1)[0]
    human = np.arange(len(episode)) % 2 == 1
    episode.policy_action[:] = -0.111
    episode.human_action[human] = episode.executed_action[human] = 0.456
    episode.intervention[:] = human
    path = tmp_path / "episode.h5"
    write_episode(path, episode)
    tuner = FineTuner(Listening(SPECS, EVERYTHING), store_of(), tmp_path / "run", batch=8, length=5, online_weight=50.0)
    tuner.add_episode(path)
    tuner.learn(10)
    actions = np.concatenate([batch["action"].ravel() for batch in seen])
    nexts = np.concatenate([batch["next_action"][batch["has_next_action"].astype(bool)].ravel() for batch in seen])
    for values in (actions, nexts):
        assert np.isclose(values, 0.456).mean() > 0.25, "every other step of an episode that is drawn most of the time"
        assert not np.isclose(values, -0.111).any()
    assert np.isclose(np.concatenate([batch["policy_action"].ravel() for batch in seen]), -0.111).any()
