"""The value-based methods from a DSRL file to a policy: they learn, continue exactly, and refuse what does not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safe_policy_core.commands import Pretrain
from safe_policy_core.data.dsrl import DsrlDataset, write_dsrl
from safe_policy_core.data.sources import KNOWN_SAFE, open_data
from safe_policy_core.data.split_safe import choose_demonstrations, split_safe
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError
from safe_policy_core.evaluation import evaluate
from safe_policy_core.interfaces import Learner, Policy, Spec, Specs
from safe_policy_core.methods.registry import learner_class, load_learner, load_policy, make_learner
from safe_policy_core.training.offline import train_offline
from tests.core.track_env import COST_LIMIT, SPECS, SPEED_LIMIT, STEPS, TrackEnv, mixed_data

SAFE = ("bcq_lag", "bear_lag", "cpq", "coptidice", "fisor")
METHODS = (*SAFE, "td3_bc", "iql", "cql", "dwbc", "rgm")
SEEDS = range(900, 906)
BATCH = 128


@pytest.fixture(scope="module")
def data() -> DsrlDataset:
    return mixed_data()


def small(method: str, **settings: Any) -> Any:
    """Narrow, quick networks; the task's own cost limit where the method has one."""
    config = learner_class(method).config_class()
    wanted = {"units": 32, "vae_units": 32, "cost_limit": COST_LIMIT, "learning_rate": 3e-3,
              "actor_learning_rate": 3e-3, "vae_learning_rate": 3e-3, "kl_weight": 0.05, "discount": 0.9,
              "target_rate": 0.05} | settings
    if method in ("dwbc", "rgm"):
        wanted["cost_limit"] = 0.0
    return dataclasses.replace(config, **{name: value for name, value in wanted.items() if hasattr(config, name)})


def trained(method: str, data: DsrlDataset, steps: int, seed: int = 0, **settings: Any) -> Any:
    learner: Any = make_learner(method, SPECS, small(method, **settings), seed)
    train_offline(learner, data, steps, BATCH, 1, seed, progress=False)
    return learner


@pytest.fixture(scope="module")
def imitated_cost(data: DsrlDataset) -> float:
    """Mean episode cost of imitating everything: the mean recorded action where the limit holds."""
    near = data.observations[:, 0] > 0
    assert data.actions[near].mean() > SPEED_LIMIT  # so that an imitator breaks the limit at each such step
    return STEPS / 2 - 2


@pytest.mark.parametrize(("method", "steps", "settings"), [
    ("bcq_lag", 160, {"perturbation": 0.3, "gains": (1.0, 0.02, 0.0)}),
    ("bear_lag", 150, {"gains": (1.0, 0.02, 0.0)}),
    ("cpq", 150, {}),
    ("coptidice", 200, {"dual_learning_rate": 3e-2, "divergence": 0.1}),
    ("fisor", 200, {"blocks": 2, "actor_target_rate": 0.05, "violation": 2.0}),
])
def test_safe_methods_cost_less_than_imitating_everything(
        method: str, steps: int, settings: dict[str, Any], data: DsrlDataset, imitated_cost: float) -> None:
    policy = trained(method, data, steps, **settings).policy()
    summary = evaluate(TrackEnv(), policy, SEEDS)
    assert summary.cost < imitated_cost / 2
    assert summary.reward > 0 or method == "fisor"  # which first of all stays where it is safe


@pytest.mark.parametrize(("method", "steps", "settings"), [
    ("td3_bc", 150, {"reward_scale": 0.3}), ("iql", 100, {}), ("cql", 80, {"samples": 4})])
def test_methods_without_cost_take_the_reward(
        method: str, steps: int, settings: dict[str, Any], data: DsrlDataset) -> None:
    policy = trained(method, data, steps, **settings).policy()
    assert evaluate(TrackEnv(), policy, SEEDS).reward > 0.85 * float(data.returns.max())
    value = policy.act({"vector": np.array([1.0, 0.0], np.float32)}).value
    # In the task's own units: about 0.7 a step, discounted with 0.9, is 7 at most, whatever the scale of training.
    assert value is not None
    assert 1 < value < 12


@pytest.mark.parametrize(("method", "settings"), [("dwbc", {}), ("rgm", {"correction_learning_rate": 1e-3})])
def test_demonstrations_make_imitation_safer(
        method: str, settings: dict[str, Any], data: DsrlDataset, imitated_cost: float) -> None:
    """Twelve safe episodes of sixty are known; no cost is used otherwise."""
    policy = trained(method, data, 150, **settings).policy()
    assert evaluate(TrackEnv(), policy, SEEDS).cost < imitated_cost / 2


def test_demonstrations_are_those_of_a_split_and_costs_serve_for_nothing_else(data: DsrlDataset) -> None:
    learner: Any = make_learner("dwbc", SPECS, small("dwbc"), seed=5)
    batch = learner.data_source(data).sample(64, 1, np.random.default_rng(0))
    chosen = choose_demonstrations(data.returns, data.cost_returns <= 0, 12, 0.5, np.random.default_rng(5))
    firsts = {tuple(row) for row in data.observations[data.starts[chosen]].tolist()}
    assert {tuple(row) for row in batch["first_observation"][:32].tolist()} <= firsts
    assert not {tuple(row) for row in batch["first_observation"][32:].tolist()} & firsts
    outcomes = []
    for cost in (0.0, 1.0):
        torch.manual_seed(0)
        fresh: Any = make_learner("dwbc", SPECS, small("dwbc"), seed=5)
        outcomes.append(fresh.update(batch | {"cost": np.full(64, cost, np.float32)}))
    assert outcomes[0] == outcomes[1]


def test_a_split_names_its_demonstrations_and_data_without_costs_is_refused(data: DsrlDataset, tmp_path: Path) -> None:
    write_dsrl(tmp_path / "data.hdf5", data)
    split_safe((tmp_path / "data.hdf5",), tmp_path / "split", demonstrations=4)
    both = open_data([tmp_path / "split"])
    assert isinstance(both, DsrlDataset)
    assert both.metadata == {KNOWN_SAFE: [0, 1, 2, 3]}
    assert len(both) == len(data)
    learner: Any = make_learner("dwbc", SPECS, small("dwbc"))
    assert learner.data_source(both).demonstrations.tolist() == [0, 1, 2, 3]
    for alone in (tmp_path / "split" / "unlabelled.hdf5", tmp_path / "split" / "safe.hdf5"):
        with pytest.raises(DatasetError, match=r"costs: all are 0.*the folder of `safe-policy dataset split-safe`"):
            Pretrain("dwbc", (alone,), tmp_path / "run", steps=1).run()
    Pretrain("dwbc", (tmp_path / "split",), tmp_path / "run", steps=1, batch=8).run()


@pytest.mark.parametrize("method", METHODS)
def test_checkpoints_continue_exactly(method: str, data: DsrlDataset, tmp_path: Path) -> None:
    learner: Any = make_learner(method, SPECS, small(method), seed=3)
    source, rng = learner.data_source(data), np.random.default_rng(0)
    batches = [source.sample(16, 1, rng) for _ in range(4)]
    for batch in batches[:2]:
        learner.update(batch)
    learner.save(tmp_path / "c")
    restored = load_learner(tmp_path / "c")
    assert isinstance(restored, Learner)
    for batch in batches[2:]:
        outcomes = []
        for each in (learner, restored):
            torch.manual_seed(7)
            outcomes.append(each.update(batch))
        assert outcomes[0] == outcomes[1]
    restored.save(tmp_path / "c")
    policy = load_policy(tmp_path / "c")
    assert isinstance(policy, Policy)
    observation = {"vector": np.array([0.1, 0.4], np.float32)}
    actions = []
    for each in (learner.policy(), policy, policy):
        each.reset(5)
        decision = each.act(observation)
        SPECS.action.validate(decision.action)
        actions.append(decision.action)
    assert np.array_equal(actions[0], actions[1])
    assert np.array_equal(actions[1], actions[2])


@pytest.mark.parametrize("method", METHODS)
def test_seeds_fix_everything(method: str, data: DsrlDataset) -> None:
    torch.manual_seed(1)
    one = trained(method, data, 3, seed=4)
    torch.manual_seed(2)
    other, third = trained(method, data, 3, seed=4), trained(method, data, 3, seed=5)
    first, second, last = (each.model.state_dict() for each in (one, other, third))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_pretraining_from_the_command_line_and_resuming(data: DsrlDataset, tmp_path: Path) -> None:
    """An interrupted and resumed run is an uninterrupted one; what was measured on the data is not measured again."""
    write_dsrl(tmp_path / "track.hdf5", data)
    settings = ("units=16", "vae_units=16", "cost_limit=2")

    def pretrain(out: str, steps: int, resume: bool = False) -> dict[str, Any]:
        return Pretrain("cpq", (tmp_path / "track.hdf5",), tmp_path / out, steps=steps, set=settings, batch=16,
                        checkpoint_every=2, resume=resume).run()

    whole = pretrain("whole", 4)
    pretrain("parts", 2)
    assert pretrain("parts", 4, resume=True)["sha256"] == whole["sha256"]
    assert load_policy(tmp_path / "whole").specs.difference(SPECS) is None


def test_observations_can_be_taken_as_they_are(data: DsrlDataset) -> None:
    learner: Any = make_learner("iql", SPECS, small("iql", standardise=False))
    learner.data_source(data)
    observations = torch.as_tensor(data.observations[:5])
    torch.testing.assert_close(learner.model.standardiser(observations), observations, rtol=0, atol=0)


def test_scales_come_from_the_data(data: DsrlDataset) -> None:
    learner: Any = make_learner("iql", SPECS)
    learner.data_source(data)
    model = learner.model
    assert model.horizon.item() == STEPS
    assert model.standardiser.mean.numpy() == pytest.approx(data.observations.mean(0), abs=1e-5)
    per_step = data.returns / STEPS
    assert model.reward_factor.item() == pytest.approx(1 / np.ptp(per_step), rel=1e-5)
    learner.step = 1
    learner.data_source(mixed_data(4, seed=1))
    assert model.reward_factor.item() == pytest.approx(1 / np.ptp(per_step), rel=1e-5)


def test_what_does_not_fit_is_refused(data: DsrlDataset, tmp_path: Path) -> None:
    images = Specs({"image": Spec("observation/image", (16, 16, 3), "uint8", 0, 255)}, SPECS.action)
    with pytest.raises(ConfigurationError, match=r"expected one vector.*16, 16, 3"):
        make_learner("cpq", images)
    learner: Any = make_learner("iql", SPECS, small("iql"))
    batch = learner.data_source(data).sample(8, 1, np.random.default_rng(0))
    del batch["terminal"]
    with pytest.raises(DatasetError, match="terminal: missing"):
        learner.update(batch)
    learner.save(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"config\.units: expected 64, the checkpoint has 32"):
        make_learner("iql", SPECS, small("iql", units=64)).load(tmp_path / "c")
    with pytest.raises(CheckpointError, match="method: expected 'cql'"):
        make_learner("cql", SPECS).load(tmp_path / "c")


@pytest.mark.parametrize(("method", "wrong", "message"), [
    ("cpq", {"cost_limit": -3.0}, "cost_limit: expected a finite number of at least 0, got -3"),
    ("cpq", {"cost_limit": float("nan")}, "cost_limit"),
    ("fisor", {"candidates": 0}, "candidates: expected at least 1, got 0"),
    ("bcq_lag", {"discount": 1.0}, "discount: expected a number above 0 and below 1, got 1"),
    ("iql", {"discount": 1.5}, "discount"), ("cql", {"samples": 0}, "samples"), ("td3_bc", {"units": 0}, "units"),
    ("iql", {"expectile": 1.0}, "expectile"), ("coptidice", {"divergence": 0.0}, "divergence"),
    ("dwbc", {"demonstrations": 0}, "demonstrations")])
def test_settings_out_of_range_are_refused(method: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small(method, **wrong)


def test_a_limit_outside_the_data_is_logged(data: DsrlDataset, caplog: pytest.LogCaptureFixture) -> None:
    for limit, logged in ((500.0, 1), (COST_LIMIT, 1), (float(data.cost_returns.max()), 1)):
        make_learner("cpq", SPECS, small("cpq", cost_limit=limit)).data_source(data)  # type: ignore[attr-defined]
        assert caplog.text.count("is outside of the data's costs") == logged
    assert "cost_limit: 500" in caplog.text
