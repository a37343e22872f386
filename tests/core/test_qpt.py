import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safe_policy_core.checkpoint import annotate_checkpoint, load_checkpoint
from safe_policy_core.commands import Evaluate, Pretrain
from safe_policy_core.data.dsrl import DsrlDataset, write_dsrl
from safe_policy_core.data.dsrl_tasks import load_tasks
from safe_policy_core.data.sequences import discounted_to_go, returns_within
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError, SpecError
from safe_policy_core.evaluation import evaluate
from safe_policy_core.interfaces import ActionDecision, Policy, Spec, Specs
from safe_policy_core.methods.bc.config import BcConfig
from safe_policy_core.methods.overrides import override
from safe_policy_core.methods.qpt.config import QptConfig
from safe_policy_core.methods.qpt.equations import choose, discounted_budget, n_step_targets
from safe_policy_core.methods.qpt.learner import QptLearner
from safe_policy_core.methods.qpt.policy import QptPolicy
from safe_policy_core.methods.registry import load_learner, load_policy, make_learner
from safe_policy_core.methods.sequence.config import CdtConfig, CdtVConfig, DtConfig
from safe_policy_core.methods.sequence.learner import SequenceLearner
from safe_policy_core.methods.sequence.model import TOKEN_RANGE, Windows, align, smooth_code
from safe_policy_core.networks.optimiser import LAST_RATE, rate_at
from safe_policy_core.targets import set_target_cost
from safe_policy_core.training.offline import train_offline
from tests.core.corridor import SPECS, STEPS, Corridor, corridor_dataset

SMALL: dict[str, Any] = {"units": 16, "heads": 2, "layers": 2, "length": 4, "episode_length": STEPS, "chunk": 8}
CONFIGS = {"dt": DtConfig(**SMALL), "cdt": CdtConfig(**SMALL),
           "qpt": QptConfig(**SMALL, critic_units=16, candidates=6, return_noise=0.3)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def learner_of(method: str, **changes: Any) -> Any:
    learner = make_learner(method, SPECS, dataclasses.replace(CONFIGS[method], **changes))
    learner.source = learner.data_source(corridor_dataset(12))  # type: ignore[attr-defined]
    return learner


def windows_of(learner: Any, count: int = 16, seed: int = 0) -> Windows:
    batch = learner.source.sample(count, 1, np.random.default_rng(seed))
    return learner.model.scaled(align({name: torch.as_tensor(value) for name, value in batch.items()}))


def test_the_learning_rate_rises_stays_or_falls() -> None:
    assert [rate_at(step, warm_up=10) for step in (5, 10, 5000)] == [0.5, 1, 1]
    falling = [rate_at(step, warm_up=10, decay=1000) for step in (10, 500, 1000, 2000)]
    assert falling[0] > 0.99
    assert falling[1] == pytest.approx((1 + LAST_RATE) / 2)
    assert falling[2:] == pytest.approx([LAST_RATE] * 2)


@pytest.mark.parametrize("method", ["bc", "cdt"])
def test_a_falling_rate_ends_in_smaller_steps(method: str) -> None:
    """The same training twice, to one that has fallen before its last step and one that has not."""
    moved = []
    for decay in (0, 3):
        config = {"bc": BcConfig(units=8, selection="all", decay=decay),
                  "cdt": dataclasses.replace(CONFIGS["cdt"], warm_up=1, decay=decay)}[method]
        learner: Any = make_learner(method, SPECS, config)
        source = learner.data_source(corridor_dataset(12))
        for step in range(6):
            before = [parameter.detach().clone() for parameter in learner.model.parameters()]
            learner.update(source.sample(8, 1, np.random.default_rng(step)))
        moved.append(sum(float((old - new.detach()).abs().sum())
                         for old, new in zip(before, learner.model.parameters(), strict=True)))
    assert moved[1] < 0.2 * moved[0]


def test_n_step_targets_are_explicit_sums() -> None:
    """Eq. 6 and 7: sum over j from m to t - 1 of gamma^(j - m) r_j, and gamma^(t - m) times the bootstrap."""
    rng, discount, length = np.random.default_rng(0), 0.9, 5
    received, bootstrap = rng.normal(size=(2, 6, length)), rng.normal(size=(2, 6))
    last, terminal = np.array([4, 4, 2, 2, 0, 0]), np.array([False, True] * 3)
    tensors = [torch.as_tensor(value) for value in (received, bootstrap, last, terminal)]
    targets, counts = n_step_targets(*tensors, discount)
    for signal, row, m in itertools.product(range(2), range(6), range(length)):
        t = last[row]
        assert counts[row, m] == (m <= t if terminal[row] else m < t)
        if counts[row, m]:
            end = t if terminal[row] else t - 1
            expected = sum(discount**(j - m) * received[signal, row, j] for j in range(m, end + 1))
            expected += 0 if terminal[row] else discount**(t - m) * bootstrap[signal, row]
            assert targets[signal, row, m].item() == pytest.approx(expected)


@pytest.mark.parametrize("method", ["dt", "cdt"])
def test_acting_equals_the_full_pass(method: str) -> None:
    """From the first step, and with more steps behind it than the context holds."""
    policy = learner_of(method).policy()
    assert policy._model.actor.to_go.mean.abs().min() > 0.01  # what acting computes in one product with the rest
    policy.reset(0)
    for step in range(2 * SMALL["length"]):
        decision = policy.act({"vector": np.array([0.1 * step, 0.5], np.float32)}, deterministic=True)
        history = policy._history()
        whole = policy._model.actor.act(policy._model.actor.last_features(history))[0]
        np.testing.assert_allclose(decision.action, whole.detach().numpy(), atol=1e-5)
        policy.observe_outcome(0.1, 0.0)


def test_candidates_are_chosen_by_value_within_the_budget() -> None:
    value, cost = torch.tensor([3.0, 2.0, 1.0, 9.0]), torch.tensor([0.6, 0.4, 0.1, 0.9])
    assert choose(value, cost, 1.0) == (3, True)
    assert choose(value, cost, 0.6) == (0, True)
    assert choose(value, cost, 0.5) == (1, True)
    assert choose(value, cost, 0.05) == (2, False)  # none: the lowest cost value, and it is told


def test_budget_is_the_discounted_value_of_an_even_spread() -> None:
    steps = 0.5 * 0.9**np.arange(20)  # 10 of cost over 20 steps
    assert discounted_budget(10, 20, 0.9) == pytest.approx(steps.sum())
    assert discounted_budget(3, 1, 0.9) == 3 and discounted_budget(3, 0, 0.9) == 3
    assert discounted_budget(7, 5, 1.0) == 7 and discounted_budget(0, 5, 0.9) == 0


def test_left_padding_changes_nothing() -> None:
    """A window that is padded gives the outputs of the same steps without padding."""
    learner = learner_of("cdt")
    data, store = learner.source.dataset, learner.source
    long = windows_of(learner, 1)._fields
    first, last = data.starts[:1], data.starts[:1] + 1
    batch = store.windows(first, last, np.zeros((2, 1), np.float32))
    assert batch["mask"].tolist() == [[False, False, True, True]]
    # What stands in the padding must not matter either.
    noisy = {name: np.where(batch["mask"].reshape(1, 4, *[1] * (value.ndim - 2)), value, 3).astype(value.dtype)
             if value.ndim > 1 and name != "mask" else value for name, value in batch.items()}
    model = learner.model
    found = [model.actor.features(model.scaled(align({name: torch.as_tensor(values[name]) for name in long})))
             for values in (batch, noisy)]
    short = Windows(*(torch.as_tensor(batch[name][:, 2:] if name != "terminal" else batch[name]) for name in long))
    alone = learner.model.actor.features(learner.model.scaled(short))
    for features in found:
        assert torch.allclose(features[:, :2], alone, atol=1e-5)


def test_targets_far_from_zero_are_told_apart() -> None:
    """Returns of 98 to 102: what the transformer gets of the lowest and of the highest must differ."""
    data = corridor_dataset(12)
    data.rewards[:] = 0
    data.rewards[data.starts[1:] - 1] = np.linspace(98, 102, len(data))
    learner = make_learner("qpt", SPECS, CONFIGS["qpt"])
    learner.data_source(data)
    for actor in (learner.model.actor, learner.model.target_actor):
        windows = windows_of(learner_of("qpt"), 2)
        asked = torch.tensor([98.0, 102.0]).view(2, 1).expand(2, 4) * learner.model.return_unit
        tokens = actor.transformer.input_norm(actor.embed(windows._replace(returns_to_go=asked))[:, 0, 0])
        assert (tokens[0] - tokens[1]).norm() > 0.5 * tokens[0].norm()


def test_neighbouring_times_begin_alike() -> None:
    code = smooth_code(500, 32)
    alike = torch.nn.functional.cosine_similarity(code[:-1], code[1:])
    assert code.shape == (500, 32) and alike.min() > 0.9
    assert torch.nn.functional.cosine_similarity(code[:250], code[250:]).max() < 0.9
    assert smooth_code(7, 5).shape == (7, 5)


def test_no_action_sees_itself_or_the_future() -> None:
    learner = learner_of("qpt")
    windows = windows_of(learner)
    changed = windows._replace(actions=torch.cat([windows.actions[:, :2], -windows.actions[:, 2:]], 1))
    before, after = (learner.model.actor.features(value) for value in (windows, changed))
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-6)


def test_the_last_feature_equals_the_full_pass() -> None:
    learner = learner_of("qpt")
    windows = windows_of(learner, 64)
    whole = Windows(*(value[windows.mask.all(1)] for value in windows))
    actor = learner.model.actor
    assert torch.allclose(actor.last_features(whole), actor.features(whole)[:, -1], atol=1e-5)


@pytest.mark.parametrize("stochastic", [True, False])
def test_policy_loss_by_hand(stochastic: bool) -> None:
    """Eq. 8: imitation - alpha_1 Q^r + alpha_2 Q^c of the policy's own actions."""
    learner = learner_of("qpt", stochastic=stochastic, cost_weight=0.0, cost_pessimism="max")
    windows, model = windows_of(learner), learner.model
    learner.weights = (torch.tensor(0.7), torch.tensor(1.3))
    features = model.actor.features(windows)[windows.mask]
    torch.manual_seed(1)
    loss, _ = learner.policy_loss(windows, features)
    torch.manual_seed(1)
    action = windows.actions[windows.mask]
    noise = [torch.randn_like(action) for _ in range(2 if stochastic else 1)]
    if stochastic:
        found = model.actor.distribution(features)
        normal = torch.distributions.Normal(found.mean, found.log_deviation.exp())
        law = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
        draw = (found.mean + found.log_deviation.exp() * noise[0]).tanh()
        imitation = -law.log_prob(action.clamp(-0.999, 0.999)).sum() + 0.1 * law.log_prob(draw).sum()
        own = (found.mean + found.log_deviation.exp() * noise[1]).tanh()
    else:
        own = model.actor.act(features)
        imitation = (own - action).square().sum()
    reward, cost = model.critics(windows.observations[windows.mask], own)
    expected = imitation - 0.7 * torch.minimum(*reward).sum() + 1.3 * torch.maximum(*cost).clamp(min=0).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_normalisers_are_the_mean_sizes_and_have_no_gradient() -> None:
    """Eq. 9 and 10, over the steps that have a target."""
    learner = learner_of("qpt", reward_weight=2.0, safety_weight=0.5)
    with torch.no_grad():
        learner.model.critics.network.biases[-1].fill_(3.0)  # no mean below the spread
    windows = windows_of(learner)
    _, counts = learner.critic_targets(windows)
    values = learner.model.critics(windows.observations[counts], windows.actions[counts]).detach().abs().mean((1, 2))
    learner.learn(windows)
    assert [weight.item() for weight in learner.weights] == pytest.approx(
        [2.0 / values[0].item(), 0.5 / values[1].item()], rel=1e-4)
    assert not any(weight.requires_grad for weight in learner.weights)


def test_normalisers_are_at_least_the_spread_of_the_data() -> None:
    """Critics that say nothing yet: without the floor the weights of eq. 9 and 10 would be without bound."""
    learner = learner_of("qpt", reward_weight=2.0, safety_weight=0.5)
    with torch.no_grad():
        learner.model.critics.network.weights[-1].zero_()
        learner.model.critics.network.biases[-1].zero_()
    learner.learn(windows_of(learner))
    spread = learner.model.critics.scale.tolist()
    assert [float(weight) for weight in learner.weights] == pytest.approx([2.0 / spread[0], 0.5 / spread[1]])


def test_bootstraps_are_the_slow_copies_values_of_the_slow_policy_s_actions() -> None:
    """Whatever the networks in training say."""
    learner = learner_of("qpt", discount=0.9)
    windows, model = windows_of(learner), learner.model

    def targets() -> torch.Tensor:
        torch.manual_seed(2)
        found, counts = learner.critic_targets(windows)
        return found[:, counts]

    before = targets()
    with torch.no_grad():
        model.actor.action_head.bias.add_(3.0)
        model.critics.network.biases[-1].add_(7.0)
    assert torch.equal(targets(), before)
    with torch.no_grad():
        model.target_actor.action_head.bias.add_(3.0)
    other_actions = targets()
    with torch.no_grad():
        model.critics.target.biases[-1].add_(7.0)
    assert not torch.allclose(other_actions, before) and (targets() - other_actions).max() > 1


def test_slow_copies_follow_after_every_step() -> None:
    """rho of Algorithm 1, for the policy and for the critics."""
    learner = learner_of("qpt", target_rate=0.25, warm_up=1)
    pairs = [(learner.model.target_actor, learner.model.actor),
             (learner.model.critics.target, learner.model.critics.network)]
    before = [[value.clone() for value in slow.parameters()] for slow, _ in pairs]
    learner.step = 1
    learner.learn(windows_of(learner))
    for old, (slow, fast) in zip(before, pairs, strict=True):
        moved = [torch.lerp(value, now, 0.25) for value, now in zip(old, fast.parameters(), strict=True)]
        assert any(not torch.equal(value, now) for value, now in zip(old, slow.parameters(), strict=True))
        for expected, found in zip(moved, slow.parameters(), strict=True):
            torch.testing.assert_close(found, expected)


def test_values_have_the_spread_of_discounted_sums_as_their_unit() -> None:
    learner, data = learner_of("qpt", discount=0.9), corridor_dataset(12)
    for signal, (values, unit) in enumerate(((data.rewards, learner.model.return_unit),
                                             (data.costs, learner.model.cost_unit))):
        sums = [sum(0.9**later * values[row + later] for later in range(int(end - row)))
                for start, end in itertools.pairwise(data.starts) for row in range(start, end)]
        np.testing.assert_allclose(discounted_to_go(values, data, 0.9, np.arange(len(data))), sums, rtol=1e-4)
        scale = learner.model.critics.scale[signal]
        assert scale.item() == pytest.approx(np.std(sums) * unit.item(), rel=1e-4)
        with torch.no_grad():
            for bias in learner.model.critics.network.biases:
                bias.zero_()
            learner.model.critics.network.weights[-1].zero_()
            learner.model.critics.network.biases[-1].fill_(2.0)
        values_of = learner.model.critics(torch.zeros(1, 2), torch.zeros(1, 1))[signal]
        torch.testing.assert_close(values_of, (2 * scale).expand(2, 1))
        # Errors are counted in that unit.
        errors = learner.model.critics.squares(learner.model.critics(torch.zeros(1, 2), torch.zeros(1, 1)),
                                               torch.zeros(2, 1))
        torch.testing.assert_close(errors, torch.full((2, 2, 1), 4.0))


def test_only_the_cost_above_what_was_asked_is_penalised() -> None:
    losses = {}
    for excess in (False, True):
        learner = learner_of("qpt", stochastic=False, cost_weight=0.0, reward_weight=0.0, penalise_excess=excess)
        windows, model = windows_of(learner), learner.model
        with torch.no_grad():
            model.critics.network.biases[-1].fill_(1.0)
        learner.weights = (torch.tensor(0.0), torch.tensor(1.0))
        features = model.actor.features(windows)[windows.mask]
        losses[excess] = learner.policy_loss(windows, features)[0].item()
        if excess:
            action, own = windows.actions[windows.mask], model.actor.act(features)
            _, cost = model.values(windows.observations[windows.mask], own)
            left = model.horizon - windows.time_steps[windows.mask]
            budget = [discounted_budget(asked.item(), steps.item(), 0.99)
                      for asked, steps in zip(windows.costs_to_go[windows.mask], left, strict=True)]
            expected = (own - action).square().sum() + (cost - torch.tensor(budget)).clamp(min=0).sum()
            assert losses[True] == pytest.approx(expected.item(), rel=1e-4)
            assert any(value == 0 for value in budget) and any(value > 0 for value in budget)
    assert losses[True] < losses[False]


@pytest.mark.parametrize("pessimism", ["max", "mean", "min"])
def test_cost_values_take_the_pessimism_that_is_asked_for(pessimism: str) -> None:
    model = learner_of("qpt", cost_pessimism=pessimism).model
    states, actions = torch.randn(5, 2), torch.randn(5, 1)
    reward, cost = model.critics(states, actions)
    value, cost_value = model.values(states, actions)
    assert torch.equal(value, torch.minimum(*reward))
    expected = {"max": torch.maximum(*cost), "mean": (cost[0] + cost[1]) / 2, "min": torch.minimum(*cost)}
    torch.testing.assert_close(cost_value, expected[pessimism].clamp(min=0))
    with torch.no_grad():
        model.critics.network.biases[-1].fill_(-10.0)
    value, cost_value = model.values(states, actions)
    assert bool((value < 0).all()) and not cost_value.any()  # rewards may be negative, costs never are


@pytest.mark.parametrize("method", CONFIGS)
def test_parts_of_a_batch_add_up_to_the_batch(method: str) -> None:
    """The same gradients, whatever the size of the parts (without noise: deterministic, no dropout)."""
    steps = []
    for chunk in (3, 100):
        learner = learner_of(method, chunk=chunk, stochastic=False, dropout=0.0)
        learner.learn(windows_of(learner))
        steps.append({name: value.clone() for name, value in learner.model.state_dict().items()})
    for name, value in steps[0].items():
        assert torch.allclose(value, steps[1][name], atol=2e-5), name


def test_fractional_costs_are_not_truncated() -> None:
    """The cost head's optimum is the mean share of the largest cost, not of a 0 and a 1."""
    learner = learner_of("cdt", learning_rate=0.02, warm_up=1, cost_weight=10.0, gradient_clip=10.0, chunk=32)
    windows = windows_of(learner, 32)
    windows = windows._replace(costs=torch.full_like(windows.costs, 0.25) * learner.model.cost_unit)
    for _ in range(30):
        learner.step += 1
        learner.learn(windows)
    features = learner.model.actor.features(windows)[windows.mask]
    joined = torch.cat([features, windows.actions[windows.mask]], -1)
    predicted = torch.sigmoid(learner.model.actor.cost_head(joined))
    assert predicted.mean().item() == pytest.approx(0.25 / float(learner.model.largest_step_cost), abs=0.03)


def test_temperature_rises_towards_the_target_entropy() -> None:
    """By default the target is minus the number of action elements, 1 here."""
    for target, sign in ((5.0, 1), (-5.0, -1), (None, -1)):
        learner = learner_of("cdt", target_entropy=target, learning_rate=0.01)
        assert -1 < float(learner.learn(windows_of(learner))["entropy"]) < 1
        assert np.sign(learner.model.temperature().item() - 0.1) == sign


@pytest.mark.parametrize("method", CONFIGS)
def test_resume_continues_exactly_and_the_checkpoint_has_the_temperature(method: str, tmp_path: Path) -> None:
    data = corridor_dataset(10)
    arguments = {"batch": 16, "length": 1, "progress": False}
    whole = make_learner(method, SPECS, CONFIGS[method])
    train_offline(whole, data, 4, **arguments)
    part = make_learner(method, SPECS, CONFIGS[method])
    train_offline(part, data, 2, checkpoint_dir=tmp_path / "run", **arguments)
    resumed = make_learner(method, SPECS, CONFIGS[method])
    train_offline(resumed, data, 4, checkpoint_dir=tmp_path / "run", resume=True, **arguments)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    tensors, _ = load_checkpoint(tmp_path / "run")
    assert torch.equal(tensors["model.temperature.logarithm"], resumed.model.temperature.logarithm.detach())
    if method != "dt":
        assert resumed.model.temperature().item() != pytest.approx(0.1, abs=1e-6)
    acted = [policy.act({"vector": np.zeros(2, np.float32)}, True).action
             for policy in (load_policy(tmp_path / "run"), load_learner(tmp_path / "run").policy())]
    np.testing.assert_allclose(acted[0], acted[1], atol=1e-6)
    annotate_checkpoint(tmp_path / "run", config={"length": 3})
    with pytest.raises(CheckpointError, match="config"):
        load_policy(tmp_path / "run")


def test_targets_change_per_episode_and_count_down() -> None:
    policy = learner_of("qpt").policy()
    policy.set_target_cost(5.0)
    assert policy.target_cost == 10.0  # the running episode keeps its own
    policy.reset(0)
    assert policy.target_cost == 5.0
    data = corridor_dataset(12)
    assert policy.target_return == pytest.approx(np.quantile(data.returns[data.cost_returns <= 5], 0.95), abs=1e-4)
    policy.set_target_cost(None)
    policy.reset(0)
    assert policy.target_cost == 10.0  # that of its training
    policy.set_target_cost(4.0, target_return=3.0)
    policy.reset(0)
    for _ in range(3):
        policy.act({"vector": np.zeros(2, np.float32)})
        policy.observe_outcome(0.5, 1.75)
    to_go = np.array(policy._to_go) / policy._units
    assert to_go.tolist() == pytest.approx(np.array([[3, 4], [2.5, 2.25], [2, 0.5]]), abs=1e-5)
    policy.act({"vector": np.zeros(2, np.float32)})
    assert policy._to_go[-1][1] == 0  # more was spent than allowed


def test_wrong_targets_are_refused_and_strange_ones_logged(caplog: pytest.LogCaptureFixture) -> None:
    policy = learner_of("cdt").policy()
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="target_cost"):
            policy.set_target_cost(wrong)
    with pytest.raises(ConfigurationError, match="target_return"):
        policy.set_target_cost(1.0, float("nan"))
    policy.set_target_cost(0.0)
    assert not caplog.records
    policy.set_target_cost(500.0)
    assert "outside of the data's costs" in caplog.text
    policy.reset(0)
    assert policy.target_return == pytest.approx(np.quantile(corridor_dataset(12).returns, 0.95), abs=1e-4)


def test_a_trained_target_outside_the_data_is_logged_in_training_and_when_it_is_used(
        caplog: pytest.LogCaptureFixture) -> None:
    learner = learner_of("cdt", target_cost=500.0)
    assert caplog.text.count("target_cost: 500 is outside of the data's costs, 0 to") == 1
    policy = learner.policy()
    set_target_cost(policy, 5.0)
    assert len(caplog.records) == 1
    set_target_cost(policy, None)
    assert caplog.text.count("target_cost: 500 is outside of the data's costs, 0 to") == 2
    caplog.clear()
    set_target_cost(learner_of("cdt").policy(), None)
    assert not caplog.records


@pytest.mark.parametrize(("method", "wrong", "message"), [
    ("cdt", {"target_cost": -5.0}, "target_cost: expected a finite number of at least 0, got -5"),
    ("cdt", {"target_cost": float("nan")}, "target_cost: .* got nan"),
    ("dt", {"length": 0}, "length: expected at least 1, got 0"), ("qpt", {"candidates": 0}, "candidates"),
    ("cdt", {"chunk": 0}, "chunk"), ("cdt", {"augmentation": -1.0}, "augmentation"),
    ("qpt", {"discount": 1.5}, "discount: expected a share above 0 and up to 1"),
    ("qpt", {"return_noise": -1.0}, "return_noise"), ("cdt", {"sampled_cost": -1.0}, "sampled_cost"),
    ("qpt", {"safety_weight": float("inf")}, "safety_weight"), ("cdt_v", {"rgm_steps": 0}, "rgm_steps"),
    ("cdt", {"heads": 3}, r"heads: expected a divisor of units \(16\), got 3")])
def test_settings_out_of_range_are_refused_before_training(method: str, wrong: dict[str, Any], message: str) -> None:
    config = CONFIGS.get(method) or CdtVConfig(**SMALL)
    with pytest.raises(ConfigurationError, match=message):
        make_learner(method, SPECS, dataclasses.replace(config, **wrong))
    if "heads" not in wrong:
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            override(config, [f"{name}={value}" for name, value in wrong.items()])


def test_settings_that_fit_only_together_are_changed_one_by_one() -> None:
    config = override(CdtConfig(), ["units=12", "heads=4"])
    assert (config.units, config.heads) == (12, 4)


@pytest.mark.parametrize(("episodes", "exact"), [(90, True), (5000, False)])
def test_what_is_asked_for_is_what_affordable_episodes_return(episodes: int, exact: bool) -> None:
    """Costs of which most are small and one is large, as in Swimmer: an even grid had one point below 10."""
    rng = np.random.default_rng(0)
    costs = np.append(rng.exponential(20.0, episodes - 1), 1000.0)
    costs[:2] = 0.0
    returns = costs / 20 + rng.random(episodes)
    data = DsrlDataset.from_arrays(
        observations=np.zeros((episodes, 2)), next_observations=np.zeros((episodes, 2)), costs=costs, rewards=returns,
        actions=np.zeros((episodes, 1)), terminals=np.ones(episodes, bool), timeouts=np.zeros(episodes, bool),
        specs=SPECS)
    learner = make_learner("cdt", SPECS, CONFIGS["cdt"])
    learner.data_source(data)  # type: ignore[attr-defined]
    model = learner.model  # type: ignore[attr-defined]
    assert (float(model.frontier_cost[0]), float(model.frontier_cost[-1])) == (0.0, 1000.0)
    limits = np.sort(np.append(rng.uniform(0, 60, 200), [0.0, 10.0, 1000.0, 5000.0]))
    expected = returns_within(data, np.union1d(data.cost_returns, limits), CONFIGS["cdt"].target_quantile)
    expected = expected[np.searchsorted(np.union1d(data.cost_returns, limits), limits)]
    asked = np.array([model.asked_return(limit) for limit in limits])
    np.testing.assert_allclose(asked, expected, atol=1e-4 if exact else 0.02 * np.ptp(expected))
    assert (asked <= expected + 1e-4).all()  # never for more than the affordable ones give


def test_the_best_return_is_asked_for_where_configured() -> None:
    policy, data = learner_of("qpt", target_quantile=1.0).policy(), corridor_dataset(12)
    policy.set_target_cost(5.0)
    policy.reset(0)
    assert policy.target_return == pytest.approx(data.returns[data.cost_returns <= 5].max(), abs=1e-4)
    with pytest.raises(ConfigurationError, match=r"target_quantile: expected a share above 0 and up to 1, got 1.5"):
        learner_of("qpt", target_quantile=1.5)


def test_candidates_are_draws_around_the_mode() -> None:
    """With `drawn_candidates`: the first is the mode itself, and the others differ by more than modes do."""
    learner = learner_of("qpt")
    acted = {}
    for drawn in (True, False):
        learner.model.config = dataclasses.replace(learner.config, drawn_candidates=drawn)
        policy = QptPolicy(learner.model, SPECS)
        features = learner.model.actor.features(windows_of(learner))[:6, -1]
        policy.reset(3)
        acted[drawn] = policy._candidate_actions(features, deterministic=True)
    torch.testing.assert_close(acted[True][0], acted[False][0])
    assert acted[False].std(0).max() < 0.5 * acted[True].std(0).min()


def test_candidates_ask_for_returns_around_the_target() -> None:
    """By noise of `return_noise` of the largest return, one for the whole episode; the first asks for the target."""
    policy = learner_of("qpt", candidates=2000, return_noise=0.3).policy()
    policy.reset(3)
    offsets = policy._offsets.clone()
    assert offsets[0] == 0
    assert offsets.std().item() == pytest.approx(0.3 * TOKEN_RANGE, rel=0.05)
    assert offsets.mean().item() == pytest.approx(0, abs=0.2)
    policy.reset(4)
    assert not torch.allclose(policy._offsets, offsets)


@pytest.mark.parametrize("shared", [False, True])
def test_what_candidates_differ_in_is_the_return_to_go(shared: bool) -> None:
    """In all of the history, or with a shared one in the newest alone; never in the cost-to-go."""
    policy = learner_of("qpt", shared_history=shared).policy()
    policy.reset(0)
    for step in range(3):  # the first has nothing before it
        policy.act({"vector": np.full(2, 0.1 * step, np.float32)}, deterministic=True)
        policy.observe_outcome(0.1, 0.0)
        history = policy._history()
        with torch.inference_mode():
            found = policy._candidate_features(history)
            for offset, features in zip(policy._offsets, found, strict=True):
                asked = history.returns_to_go.clone()
                asked[:, -1 if shared else slice(None)] += offset
                expected = policy._model.actor.last_features(history._replace(returns_to_go=asked))[0]
                torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
        assert found.std(0).max() > 1e-3


def test_the_best_candidate_within_the_discounted_budget_acts() -> None:
    """Eq. 13 and 14 in an episode: 4 of cost were allowed and 1 was spent, so that 3 are left for 19 steps."""
    learner = learner_of("qpt", discount=0.9)
    policy, model = learner.policy(), learner.model
    policy.set_target_cost(4.0)
    policy.reset(0)
    policy.act({"vector": np.zeros(2, np.float32)}, deterministic=True)
    policy.observe_outcome(0.0, 1.0)
    allowed = 3 / 19 * sum(0.9**step for step in range(19)) * float(model.cost_unit)
    values = torch.tensor([1.0, 2.0, 9.0, -5.0, 2.5, 8.0])
    costs = allowed * torch.tensor([0.5, 0.9, 1.05, 0.1, 0.95, 1.5])
    rated: list[torch.Tensor] = []

    def rate(states: torch.Tensor, actions: torch.Tensor, slow: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        assert slow
        rated.append(actions)
        return values.unsqueeze(1), costs.unsqueeze(1)

    model.values = rate
    decision = policy.act({"vector": np.zeros(2, np.float32)}, deterministic=True)
    np.testing.assert_array_equal(decision.action, rated[0][4, 0].numpy())
    assert decision.value == pytest.approx(2.5 / float(model.return_unit))
    assert decision.cost_value == pytest.approx(float(costs[4]) / float(model.cost_unit))
    assert decision.chosen_policy == "within_budget" and policy.infeasible_steps == 0


def test_only_policies_that_take_targets_are_given_another() -> None:
    class Still(Policy):
        def reset(self, seed: int) -> None: ...

        def act(self, observation: Any, deterministic: bool = False) -> ActionDecision:
            return ActionDecision(np.zeros(1, np.float32))

    set_target_cost(Still(), None)
    with pytest.raises(ConfigurationError, match="target_cost: a policy of kind Still"):
        set_target_cost(Still(), 1.0)
    with pytest.raises(ConfigurationError, match="target_return: give target_cost too"):
        set_target_cost(learner_of("cdt").policy(), None, 3.0)


def test_infeasible_steps_are_counted_and_reported() -> None:
    learner = learner_of("qpt")
    with torch.no_grad():
        learner.model.critics.target.biases[-1].fill_(3.0)  # everything costs more than any budget
    policy = learner.policy()
    policy.set_target_cost(1.0)
    policy.reset(0)
    decisions = [policy.act({"vector": np.zeros(2, np.float32)}) for _ in range(4)]
    assert policy.infeasible_steps == 4 and {decision.chosen_policy for decision in decisions} == {"lowest_cost"}
    assert all(decision.cost_value > 1 for decision in decisions)
    policy.reset(0)
    assert policy.infeasible_steps == 0


@pytest.mark.parametrize("changes", [{}, {"shared_history": True}, {"candidates": 1}])
def test_acting_is_reproducible_and_within_bounds(changes: dict[str, Any]) -> None:
    policy = learner_of("qpt", **changes).policy()
    runs = []
    for seed in (3, 3, 4):
        policy.reset(seed)
        actions = []
        for step in range(6):
            actions.append(policy.act({"vector": np.full(2, 0.1 * step, np.float32)}).action)
            policy.observe_executed(np.array([0.1], np.float32))
        runs.append(np.array(actions))
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
    assert np.abs(runs[0]).max() <= 1 and runs[0].dtype == np.float32
    with pytest.raises(SpecError, match="vector"):
        policy.act({"vector": np.zeros(3, np.float32)})


def test_one_candidate_is_told_the_cost_value_of_its_action() -> None:
    policy = learner_of("qpt", candidates=1).policy()
    decision = policy.act({"vector": np.full(2, 0.3, np.float32)}, deterministic=True)
    model = policy._model
    with torch.inference_mode():
        state, action = model.states(torch.full((1, 2), 0.3)), torch.from_numpy(decision.action)[None]
        _, cost = model.values(state, action, slow=True)
    assert decision.cost_value == pytest.approx(float(cost) / float(model.cost_unit), abs=1e-6)
    assert decision.value is None


def test_what_ran_is_what_is_remembered() -> None:
    policy = learner_of("cdt").policy()
    policy.act({"vector": np.zeros(2, np.float32)})
    policy.observe_executed(np.array([0.25], np.float32))
    policy.act({"vector": np.zeros(2, np.float32)})
    assert policy._history().actions[0, :, 0].tolist()[0] == 0.25


def test_wrong_data_and_specs_are_named() -> None:
    pictures = Specs({"image": Spec("observation/image", (8, 8, 3), "uint8")}, SPECS.action)
    with pytest.raises(ConfigurationError, match="one vector"):
        QptLearner(pictures, CONFIGS["qpt"])
    with pytest.raises(DatasetError, match="mask: missing"):
        batch = learner_of("cdt").source.sample(2, 1, np.random.default_rng(0))
        batch.pop("mask")
        learner_of("cdt").update(batch)
    wider = Specs({"vector": Spec("observation/vector", (3,))}, SPECS.action)
    with pytest.raises(DatasetError, match=r"observation vector.*\[3\].*\[2\]"):
        train_offline(SequenceLearner(wider, CONFIGS["cdt"]), corridor_dataset(4), 1, 4, 1, progress=False)


def test_conditioned_on_little_cost_they_are_safe_where_cloning_everything_is_not() -> None:
    """70% of the data is unsafe: BC-All is drawn there, CDT and QPT keep to a target cost of 0, BC-Safe too."""
    data, costs = corridor_dataset(), {}
    fast = {"units": 32, "learning_rate": 2e-3, "warm_up": 10, "dropout": 0.0, "chunk": 64}
    bc = {"units": 32, "layers": 1}
    for name, method, changes, steps in (
            ("bc_all", "bc", bc | {"selection": "all"}, 100), ("bc_safe", "bc", bc, 100), ("cdt", "cdt", fast, 80),
            ("qpt", "qpt", fast | {"critic_units": 32, "discount": 0.9}, 80)):
        default = CONFIGS.get(method)
        config = dataclasses.replace(default or make_learner("bc", SPECS).config, **changes)
        learner = make_learner(method, SPECS, config)
        train_offline(learner, data, steps, 32, 1, progress=False)
        policy = learner.policy()
        if default is not None:
            policy.set_target_cost(0.0)
        costs[name] = evaluate(Corridor(), policy, range(4)).cost
    assert costs["bc_all"] > 5
    assert costs["bc_safe"] == 0
    assert costs["cdt"] < 0.5 and costs["qpt"] < 0.5


def test_command_line_trains_on_a_file_and_evaluates_under_another_threshold(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dsrl(tmp_path / "corridor.hdf5", corridor_dataset(6))
    monkeypatch.setattr("safe_policy_core.commands.open_env", lambda task, specs: Corridor())
    settings = ("units=16", "layers=1", "heads=2", "length=3")
    for method, extra in (("qpt", (*settings, "critic_units=16", "candidates=3")), ("bc", ("units=16", "cost_limit=8"))
                          ):
        trained = Pretrain(method, (tmp_path / "corridor.hdf5",), tmp_path / method, steps=2, set=extra, batch=8).run()
        assert trained["episodes"] == 6 and trained["frames"] == 6 * STEPS
    found = Evaluate(tmp_path / "qpt", episodes=1, target_cost=2.0).run()
    assert found["target_cost"] == 2.0 and set(found["policy_shares"]) <= {"within_budget", "lowest_cost"}
    assert "normalized_reward" not in found
    with pytest.raises(ConfigurationError, match="target_cost: a policy of kind BcPolicy"):
        Evaluate(tmp_path / "bc", episodes=1, target_cost=2.0).run()
    with pytest.raises(DatasetError, match="none of 6 episodes passes"):
        Pretrain("bc", (tmp_path / "corridor.hdf5",), tmp_path / "none", steps=1, set=("cost_limit=-1",)).run()


def test_on_a_task_of_dsrl_scores_are_normalised_by_its_constants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                  ) -> None:
    write_dsrl(tmp_path / "corridor.hdf5", corridor_dataset(6))
    opened = []
    monkeypatch.setattr("safe_policy_core.commands.open_env", lambda task, specs: opened.append(task) or Corridor())
    small = {"cdt": ("units=16", "layers=1", "heads=2", "length=3", "target_cost=8"),
             "cpq": ("units=16", "vae_units=16", "cost_limit=8"), "iql": ("units=16",)}
    for method, settings in small.items():
        Pretrain(method, (tmp_path / "corridor.hdf5",), tmp_path / method, steps=1, set=settings, batch=8).run()
    goal = load_tasks()["PointGoal1"]
    for method, name, limit, asked in (("cdt", "PointGoal1", 8.0, None), ("cdt", goal.env_id, 4.0, 4.0),
                                       ("cpq", goal.name, 8.0, None), ("iql", goal.name, None, None)):
        found = Evaluate(tmp_path / method, name, episodes=2, target_cost=asked).run()
        assert opened.pop() == "SafetyPointGoal1Gymnasium-v0"
        assert found["normalized_reward"] == pytest.approx(goal.normalized_reward(found["reward"]))
        assert found.get("cost_threshold") == limit
        assert found.get("normalized_cost") == (None if limit is None else pytest.approx(found["cost"] / limit))
    with pytest.raises(ConfigurationError, match=r"AntRun \(OfflineAntRun-v0\) is not a task of Safety-Gymnasium"):
        Evaluate(tmp_path / "iql", "AntRun", episodes=1).run()
