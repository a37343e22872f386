"""Every method's loss against a case computed by hand, or against the formula in its plainest form."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.offline.bear_lag import mean_discrepancy
from safe_policy_core.methods.offline.config import FisorConfig
from safe_policy_core.methods.offline.coptidice import divergence, ratio_of
from safe_policy_core.methods.offline.cpq import COST, only_if_safe
from safe_policy_core.methods.offline.cql import log_sum_exp
from safe_policy_core.methods.offline.dwbc import imitation_weights, positive_unlabelled_loss
from safe_policy_core.methods.offline.fisor import feasible_target, imitation_weight
from safe_policy_core.methods.offline.iql import advantage_weight
from safe_policy_core.methods.offline.lagrangian import best_candidate
from safe_policy_core.methods.offline.model import OfflineModel, Steps
from safe_policy_core.methods.offline.rgm import dual, gap, log_ratio
from safe_policy_core.methods.offline.td3_bc import imitating_loss
from safe_policy_core.methods.registry import learner_class, make_learner
from safe_policy_core.networks.action_vae import latent_kl

SPECS = Specs({"vector": Spec("observation/vector", (3,))}, Spec("action", (2,), low=-1.0, high=1.0))
CONSTRAINED = ("bcq_lag", "bear_lag", "cpq", "fisor")
WITH_CRITICS = (*CONSTRAINED, "td3_bc", "iql", "cql")
ROWS = 32


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def steps(terminal: bool = False, cost: float = 0.5) -> Steps:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Steps(normal(ROWS, 3), normal(ROWS, 2).tanh(), normal(ROWS), torch.full((ROWS,), cost), normal(ROWS, 3),
                 torch.full((ROWS,), 0.0 if terminal else 0.99), normal(ROWS, 3))


def learner(method: str, **settings: Any) -> Any:
    """A small one, of a task with episodes of 100 steps."""
    config = dataclasses.replace(learner_class(method).config_class(), units=16, **settings)
    made = make_learner(method, SPECS, config)
    made.model.horizon.fill_(100.0)  # type: ignore[attr-defined]
    return made


# What all share


def test_cost_limits_become_discounted() -> None:
    """A limit of 10 spread over 100 steps is 0.1 a step, and 0.1 (1 - 0.99^100) / 0.01 as a value."""
    assert learner("cpq").model.cost_threshold == pytest.approx(0.1 * (1 - 0.99**100) / 0.01)


def test_batches_become_steps() -> None:
    model: OfflineModel = learner("iql").model
    model.reward_factor.fill_(2.0)
    model.standardiser.mean.fill_(1.0)
    batch = {"observation": torch.ones(2, 3), "next_observation": torch.ones(2, 3) + 1, "action": torch.zeros(2, 2),
             "first_observation": torch.ones(2, 3), "reward": torch.tensor([1.0, -1.0]), "cost": torch.tensor([0.5, 0]),
             "terminal": torch.tensor([False, True])}
    made = model.steps(batch)
    assert made.reward.tolist() == [2.0, -2.0]
    assert made.cost.tolist() == [0.5, 0.0]
    assert made.discount.tolist() == [pytest.approx(0.99), 0.0]
    assert torch.equal(made.state, torch.zeros(2, 3))
    assert torch.equal(made.next_state, torch.ones(2, 3))


@pytest.mark.parametrize("method", WITH_CRITICS)
def test_critics_learn_the_reward_alone_where_episodes_end(method: str) -> None:
    """At a termination the targets are r and c (for FISOR h): nothing is bootstrapped, from no network."""
    made, data = learner(method), steps(terminal=True)
    signals = [data.reward]
    if method in CONSTRAINED:
        signals.append(torch.full((ROWS,), made.config.violation) if method == "fisor" else data.cost)
    values = made.model.critics(data.state, data.action).detach()
    expected = sum(((values[index, twin] - signal)**2).mean().item()
                   for index, signal in enumerate(signals) for twin in range(2))
    metrics = made.learn(data)
    found = float(metrics["critic_loss"])
    if method == "cql":
        found = 2 * (found - made.config.conservatism * float(metrics["penalty"]))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", [*WITH_CRITICS, "coptidice"])
def test_each_optimiser_moves_its_own_networks(method: str) -> None:
    """The actor's loss runs through the critics, and must leave them alone: frozen critics stay as they are."""
    made = learner(method, **{name: 0.0 for name in ("learning_rate", "vae_learning_rate")
                              if hasattr(learner(method).config, name)})
    before = copy.deepcopy(made.model.state_dict())
    for _ in range(2):
        made.step += 1  # TD3's actor moves at every second step
        made.learn(steps())
    moved = {name.split(".")[0] for name, value in made.model.state_dict().items()
             if not torch.equal(value, before[name])}
    assert "actor" in moved
    assert not moved & {"critics", "vae", "values", "value", "nu", "chi"}


@pytest.mark.parametrize(("method", "slow", "rate"), [
    ("bcq_lag", "target_actor", "target_rate"), ("bear_lag", "target_actor", "target_rate"),
    ("cpq", "target_actor", "target_rate"), ("td3_bc", "target_actor", "target_rate"),
    ("fisor", "slow_actor", "actor_target_rate")])
def test_slow_actors_follow(method: str, slow: str, rate: str) -> None:
    made = learner(method, **{rate: 0.25})
    made.step = 2  # TD3's actor moves at every second step
    copied = getattr(made.model, slow)
    before = [value.clone() for value in copied.parameters()]
    made.learn(steps())
    for old, new, found in zip(before, made.model.actor.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(found, torch.lerp(old, new, 0.25))
    assert any(not torch.equal(old, found) for old, found in zip(before, copied.parameters(), strict=True))


# BCQ-Lag and BEAR-Lag


def test_the_best_candidate_counts_for_reward_and_for_cost() -> None:
    values = torch.tensor([[[1.0, 5.0], [3.0, 4.0]], [[0.0, 2.0], [1.0, 0.0]]])
    chosen, best = best_candidate(values, torch.tensor(0.0))
    assert best.tolist() == [1, 0]
    assert chosen.tolist() == [[3.0, 5.0], [1.0, 2.0]]
    chosen, best = best_candidate(values, torch.tensor(1.0))
    assert best.tolist() == [1, 1]
    assert chosen.tolist() == [[3.0, 4.0], [1.0, 0.0]]


def test_targets_of_the_lagrangian_methods() -> None:
    """Against a loop over states and candidates, with BCQ eq. 13 written out."""
    made, data = learner("bcq_lag"), steps()
    made.model.lagrangian.multiplier.fill_(0.7)
    torch.manual_seed(5)
    targets = made.targets(data)
    torch.manual_seed(5)
    actions = made.model.draw(data.next_state, torch.randn(10, ROWS, made.model.noise_size), slow=True)
    for row in range(ROWS):
        scored = []
        for candidate in range(10):
            values = made.model.critics(data.next_state[row:row + 1], actions[candidate, row:row + 1], slow=True)
            reward, cost = values[0, :, 0].tolist(), values[1, :, 0].tolist()
            scored.append((0.75 * min(reward) + 0.25 * max(reward), 0.75 * max(cost) + 0.25 * min(cost)))
        value, cost_value = max(scored, key=lambda pair: pair[0] - 0.7 * pair[1])
        assert targets[0, row].item() == pytest.approx(data.reward[row].item() + 0.99 * value, abs=1e-4)
        assert targets[1, row].item() == pytest.approx(0.5 + 0.99 * cost_value, abs=1e-4)


def test_perturbations_are_small() -> None:
    made = learner("bcq_lag", perturbation=0.1)
    action = torch.tensor([[0.99, 0.0]]).expand(ROWS, 2)
    with torch.no_grad():
        made.model.actor.biases[-1].fill_(50.0)  # the largest shift there is
    moved = made.model.perturbed(steps().state, action)
    assert torch.allclose(moved, torch.tensor([1.0, 0.1]).expand(ROWS, 2))


def test_discrepancy_against_the_plain_double_sum() -> None:
    left, right, width = torch.randn(4, 3, 2), torch.randn(5, 3, 2), 2.0

    def kernel(x: Tensor, y: Tensor) -> float:
        return math.exp(-float((x - y).square().sum()) / (2 * width))

    for pair in range(3):
        x, y = left[:, pair], right[:, pair]
        square = (sum(kernel(a, b) for a in x for b in x) / 16 + sum(kernel(a, b) for a in y for b in y) / 25
                  - 2 * sum(kernel(a, b) for a in x for b in y) / 20)
        assert mean_discrepancy(left, right, width)[pair].item() == pytest.approx(math.sqrt(square + 1e-6), rel=1e-3)
    assert mean_discrepancy(left, left, width).max().item() == pytest.approx(1e-3, rel=0.5)


def test_the_multiplier_weighs_the_excess() -> None:
    """lambda (Q^c - limit) - Q^r, with the smaller reward value and the larger cost value."""
    made = learner("bear_lag", gains=(0.5, 0.0, 0.0))
    limit = made.model.cost_threshold
    values = torch.tensor([[[1.0], [2.0]], [[limit + 1.0], [limit + 3.0]]])
    loss, excess = made.penalised(values)
    assert excess.item() == pytest.approx(3.0, rel=1e-5)
    assert loss.item() == pytest.approx(0.5 * 3.0 * 3.0 - 1.0, rel=1e-5)


@pytest.mark.parametrize(("limit", "sign"), [(0.0, 1), (10.0, -1)])
def test_the_dual_variable_of_bear_rises_while_actions_are_too_far_from_the_data(limit: float, sign: int) -> None:
    made = learner("bear_lag", mmd_limit=limit, dual_learning_rate=0.1)
    metrics = made.learn(steps())
    expected = 0.1 * (float(metrics["discrepancy"]) - limit)
    assert made.model.log_dual.item() == pytest.approx(expected, rel=1e-4)
    assert np.sign(expected) == sign


def test_the_discrepancy_of_bear_is_a_penalty() -> None:
    """alpha (MMD - limit): a limit that is 2 higher takes 2 alpha off the loss."""
    losses = []
    for limit in (0.0, 2.0):
        made = learner("bear_lag", mmd_limit=limit)
        made.model.log_dual.fill_(0.5)
        torch.manual_seed(0)
        losses.append(made.actor_loss(steps())[0].item())
    assert losses[0] - losses[1] == pytest.approx(2 * math.exp(0.5), rel=1e-4)


# CPQ


def test_unsafe_values_count_for_nothing() -> None:
    value, cost = torch.tensor([2.0, 2.0, -3.0, -3.0]), torch.tensor([0.5, 1.5, 0.5, 1.5])
    assert only_if_safe(value, cost, 1.0).tolist() == [2.0, 0.0, -3.0, -3.0]


def test_targets_of_cpq() -> None:
    made, data = learner("cpq"), steps()
    torch.manual_seed(3)
    targets = made.targets(data)
    torch.manual_seed(3)
    distribution = made.model.target_actor(data.next_state)
    action = distribution.raw_sample(torch.randn(ROWS, 2)).tanh()
    value, cost = made.model.values(data.next_state, action, slow=True)
    expected = data.reward + 0.99 * torch.where(cost <= made.model.cost_threshold, value, value.clamp(max=0))
    assert torch.allclose(targets[0], expected)
    assert torch.allclose(targets[1], 0.5 + 0.99 * cost)


def test_the_action_outside_the_data_is_that_of_the_largest_divergence() -> None:
    made, state = learner("cpq", samples=4), steps().state
    distribution = made.model.actor(state)
    torch.manual_seed(3)
    found = made.outside(state, distribution)
    torch.manual_seed(3)
    drawn = distribution.raw_sample(torch.randn(4, ROWS, 2)).tanh()
    for row in range(ROWS):
        divergences = [latent_kl(*made.model.vae.encode(state[row:row + 1], drawn[sample, row:row + 1])).item()
                       for sample in range(4)]
        assert torch.equal(found[row], drawn[int(np.argmax(divergences)), row])


def test_the_penalty_has_a_gradient_and_works() -> None:
    """OSRL's has none. Here it reaches both cost critics and no reward critic, and raises the cost outside."""
    made, data = learner("cpq"), steps(terminal=True, cost=0.0)
    made.model.critics.of(COST, data.state, made.outside(data.state, made.model.actor(data.state))).mean().backward()
    gradients = made.model.critics.network.weights[-1].grad.abs().sum((1, 2))
    assert (gradients[2:] > 0).all()
    assert (gradients[:2] == 0).all()
    assert all(parameter.grad is None for parameter in made.model.actor.parameters())

    costs = {}
    for log_dual in (-50.0, 1.0):  # without the penalty, and with it
        made = learner("cpq", learning_rate=1e-2, dual_learning_rate=0.0, actor_learning_rate=0.0)
        for _ in range(30):
            made.model.log_dual.fill_(log_dual)
            metrics = made.learn(data)
        costs[log_dual] = float(metrics["outside_cost"])
    assert costs[1.0] > costs[-50.0] + 0.3


@pytest.mark.parametrize(("limit", "counts_as"), [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (10.0, 10.0)])
def test_the_penalty_reaches_above_any_limit(limit: float, counts_as: float) -> None:
    """At a limit of 0, too, critics that say 0 everywhere are raised outside the data: above the limit."""
    made = learner("cpq", cost_limit=limit)
    assert made.wanted_cost == pytest.approx(1.5 * counts_as / 100 * (1 - 0.99**100) / 0.01)
    raised: list[Tensor] = []
    made.optimisers["critics"].step = lambda loss: raised.append(
        torch.autograd.grad(loss, made.model.critics.network.biases[-1])[0])
    with torch.no_grad():
        for network in (made.model.critics.network, made.model.critics.target):
            network.weights[-1].zero_()
            network.biases[-1].zero_()
    made.learn(steps(cost=0.0))  # with targets of 0, all of the cost critics' gradient is the penalty's
    assert (raised[0].flatten()[2:] < 0).all()


@pytest.mark.parametrize("recovery", [0.0, 1.0])
def test_the_policy_leaves_where_all_is_unsafe(recovery: float) -> None:
    """The paper's objective has no gradient there (recovery 0): positive values count for nothing."""
    made, data = learner("cpq", recovery=recovery, cost_limit=1e-3, learning_rate=0.0), steps()
    with torch.no_grad():
        made.model.critics.network.biases[-1].add_(5.0)  # every value positive, every cost above the limit
    before = copy.deepcopy(made.model.actor.state_dict())
    made.learn(data)
    stayed = all(torch.equal(value, before[name]) for name, value in made.model.actor.state_dict().items())
    assert stayed == (recovery == 0)


def test_the_dual_variable_rises_until_the_outside_is_costly() -> None:
    made = learner("cpq", dual_learning_rate=0.1)
    made.learn(steps())
    assert made.model.log_dual.item() > 0  # costs start near 0, below 1.5 times the limit


# COptiDICE


def test_soft_chi_square_divergence() -> None:
    ratio = torch.tensor([0.0, 0.5, 1.0, 3.0])
    expected = [1.0, 0.5 * (math.log(0.5) - 1) + 1, 0.0, 2.0]
    assert divergence(ratio).tolist() == pytest.approx(expected, abs=1e-6)
    # The ratio is the inverse of f', and so maximises w e - f(w).
    for advantage in (-2.0, -0.1, 0.0, 1.5):
        best = ratio_of(torch.tensor(advantage))
        others = torch.linspace(0.001, 4, 4000)
        objective = others * advantage - divergence(others)
        assert others[objective.argmax()].item() == pytest.approx(best.item(), abs=2e-3)


def test_the_cost_bound_is_the_mean_cost_without_a_margin_and_above_it_with_one() -> None:
    data, ratio = steps(), torch.rand(ROWS)
    data = Steps(data.state, data.action, data.reward, torch.rand(ROWS), data.next_state, data.discount,
                 data.first_state)
    plain, *_ = learner("coptidice", cost_divergence=0.0).cost_bound(ratio, data)
    assert plain.item() == pytest.approx((ratio * data.cost).mean().item())
    made = learner("coptidice")
    with torch.no_grad():  # chi = 0: the objective is w c itself, and the worst weights favour what is costly
        for parameter in made.model.chi.parameters():
            parameter.zero_()
    bound, chi_loss, reached = made.cost_bound(ratio, data)
    weights = (ratio * data.cost / math.log(1 + math.e)).softmax(0)
    assert bound.item() == pytest.approx((weights * ratio * data.cost).sum().item(), rel=1e-4)
    assert bound > plain
    assert chi_loss.item() == pytest.approx(bound.item(), rel=1e-4)
    assert reached.item() == pytest.approx((weights * (weights * ROWS).log()).sum().item(), rel=1e-3)


def test_coptidice_losses_by_hand() -> None:
    made, data = learner("coptidice", cost_divergence=0.0), steps()
    nu, following, first = (made.model.nu(state).squeeze(-1).detach() for state in
                            (data.state, data.next_state, data.first_state))
    multiplier = math.log(1 + math.e)
    residual = data.reward - multiplier * 0.5 + 0.99 * following - nu
    weight = torch.where(residual < 0, (residual / 0.5).exp(), residual / 0.5 + 1)
    expected = 0.01 * first.mean() + (weight * residual - 0.5 * divergence(weight)).mean()
    metrics = made.learn(data)
    assert float(metrics["nu_loss"]) == pytest.approx(expected.item(), rel=1e-4)
    assert float(metrics["cost_bound"]) == pytest.approx((0.5 * weight).mean().item(), rel=1e-4)


@pytest.mark.parametrize(("allowed", "sign"), [(0.0, 1), (1000.0, -1)])
def test_the_multiplier_of_coptidice_rises_while_it_costs_too_much(allowed: float, sign: int) -> None:
    made = learner("coptidice", cost_limit=allowed, dual_learning_rate=0.1)
    metrics = made.learn(steps())
    limit = 0.01 * made.model.cost_threshold
    assert np.sign(float(metrics["cost_bound"]) - limit) == sign
    assert np.sign(made.model.duals["lambda"].item() - 1) == sign


@pytest.mark.parametrize(("allowed", "sign"), [(1e-9, 1), (10.0, -1)])
def test_the_temperature_of_coptidice_rises_while_the_worst_weights_are_too_far_from_the_data(
        allowed: float, sign: int) -> None:
    made = learner("coptidice", cost_divergence=allowed, dual_learning_rate=0.1)
    metrics = made.learn(steps(cost=1.0))
    assert np.sign(float(metrics["divergence"]) - allowed) == sign
    assert np.sign(made.model.duals["tau"].item() - 1) == sign


# FISOR


def test_feasible_values_on_a_chain() -> None:
    """States 0 -> 1 -> 2 -> 2 with h -1, -1 and 25 at the last: all lead there, none is feasible; with -1 all are."""
    for violation, feasible in ((25.0, False), (-1.0, True)):
        h, value = torch.tensor([-1.0, -1.0, violation]), torch.zeros(3)
        for _ in range(3000):
            value = feasible_target(h, value[[1, 2, 2]], torch.full((3,), 0.99))
        assert bool((value <= 0).all()) == feasible
        # At the loop V = h; before it V = (1 - d) h + d V(next).
        last = violation
        middle = 0.01 * -1 + 0.99 * max(-1.0, last)
        assert value.tolist() == pytest.approx([0.01 * -1 + 0.99 * max(-1.0, middle), middle, last], rel=1e-3)
    assert feasible_target(torch.tensor([25.0]), torch.tensor([90.0]), torch.zeros(1)).item() == 25.0


def test_weights_of_fisor() -> None:
    config = FisorConfig()
    advantage = torch.tensor([0.5, 0.5, 0.5, 0.5, 9.0, 0.0])
    value = torch.tensor([-1.0, -1.0, 2.0, 2.0, -1.0, 9.0])
    q = torch.tensor([-0.5, 0.5, 1.8, 3.0, -1.0, 0.0])
    expected = [math.exp(1.5), 0.0, math.exp(1.0), math.exp(-5.0), 100.0, 150.0]
    assert imitation_weight(advantage, value, q, config).tolist() == pytest.approx(expected, rel=1e-4)


def test_value_losses_of_fisor_by_hand() -> None:
    """V is the upper expectile of Q, as in IQL; V_h the lower one of Q_h: the best that a recorded action can do."""
    made, data = learner("fisor", expectile=0.9), steps()
    slow = made.model.critics(data.state, data.action, slow=True).detach()
    value, feasible = (found.detach() for found in made.model.state_values(data.state))
    above, below = torch.minimum(*slow[0]) - value, torch.maximum(*slow[1]) - feasible
    expected = (torch.where(above > 0, 0.9, 0.1) * above**2 + torch.where(below > 0, 0.1, 0.9) * below**2).mean()
    assert float(made.learn(data)["value_loss"]) == pytest.approx(expected.item(), rel=1e-4)


def test_fisor_takes_the_most_feasible_of_its_draws() -> None:
    model, state = learner("fisor", candidates=8).model, steps().state[:1]
    found = model.decide(state, torch.Generator().manual_seed(0), deterministic=True)
    generator = torch.Generator().manual_seed(0)
    states = state.expand(8, -1)
    actions = model.diffusion.sample(lambda action, step: model.slow_actor(states, action, step),
                                     torch.randn(8, 2, generator=generator), generator, bound=1.0)
    reward, violation = model.critics(states, actions, slow=True)
    best = int(torch.maximum(*violation).argmin())
    torch.testing.assert_close(found.action[0], actions[best])
    assert found.cost_value.item() == pytest.approx(torch.maximum(*violation).min().item(), abs=1e-6)
    assert found.value.item() == pytest.approx(torch.minimum(*reward)[best].item(), abs=1e-6)


# TD3+BC, IQL, CQL


def test_imitating_loss_by_hand() -> None:
    value, action, recorded = torch.tensor([2.0, -4.0]), torch.tensor([[0.5], [0.0]]), torch.zeros(2, 1)
    # lambda = 2.5 / 3; squared errors 0.25 and 0.
    assert imitating_loss(value, action, recorded, 2.5).item() == pytest.approx(0.125 + 2.5 / 3)


def test_advantage_weights() -> None:
    weights = advantage_weight(torch.tensor([0.0, 1.0, -1.0, 50.0]), 3.0, 100.0)
    assert weights.tolist() == pytest.approx([1.0, math.exp(3), math.exp(-3), 100.0], rel=1e-5)


def test_iql_losses_by_hand() -> None:
    made, data = learner("iql"), steps()
    model = made.model
    q = model.critics(data.state, data.action, slow=True)[0].amin(0).detach()
    value, following = (model.value(state).squeeze(-1).detach() for state in (data.state, data.next_state))
    error = q - value
    expected = (torch.where(error > 0, 0.7, 0.3) * error**2).mean()
    log_probability = model.actor(data.state).log_probability(data.action).detach()
    both = model.critics(data.state, data.action)[0].detach()
    metrics = made.learn(data)
    assert float(metrics["value_loss"]) == pytest.approx(expected.item(), rel=1e-4)
    assert float(metrics["actor_loss"]) == pytest.approx(-(torch.exp(3 * error) * log_probability).mean().item(),
                                                         rel=1e-4)
    target = data.reward + 0.99 * following
    assert float(metrics["critic_loss"]) == pytest.approx(((both - target)**2).mean(1).sum().item(), rel=1e-4)


def test_sampled_log_sum_exp_is_the_integral() -> None:
    """Q(a) = -2 a^2 on [-1, 1]: uniform draws of density 1/2 and draws of any other known density agree."""
    generator = np.random.default_rng(0)
    grid = torch.linspace(-1, 1, 100_001)
    integral = math.log(float((-2 * grid**2).exp().mean() * 2))
    uniform = torch.as_tensor(generator.uniform(-1, 1, 50_000), dtype=torch.float32)
    slanted = 2 * torch.as_tensor(generator.beta(2, 2, 50_000), dtype=torch.float32) - 1
    for draws, density in ((uniform, torch.full_like(uniform, 0.5)), (slanted, 0.75 * (1 - slanted**2))):
        values = (-2 * draws**2).expand(2, 1, -1).transpose(1, 2)
        assert log_sum_exp(values, density.log().unsqueeze(1))[0, 0].item() == pytest.approx(integral, abs=0.02)


def test_cql_lowers_actions_that_are_not_in_the_data() -> None:
    made = learner("cql", learning_rate=1e-2, actor_learning_rate=0.0)
    data = Steps(**{**vars(steps(terminal=True)), "reward": torch.zeros(ROWS), "action": torch.full((ROWS, 2), 0.8)})
    for _ in range(40):
        made.learn(data)
    values = [made.model.critics(data.state, torch.full((ROWS, 2), place))[0].mean().item() for place in (0.8, -0.8)]
    assert values[0] > values[1] + 0.5


# DWBC, RGM


def test_positive_unlabelled_loss_by_hand() -> None:
    safe, unlabelled = torch.tensor([0.8, 0.5]), torch.tensor([0.3])
    expected = 0.5 * (-math.log(0.8) - math.log(0.5) + math.log(0.2) + math.log(0.5)) / 2 - math.log(0.7)
    assert positive_unlabelled_loss(safe, unlabelled, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_dwbc() -> None:
    safe, unlabelled = imitation_weights(torch.tensor([0.5, 0.9]), torch.tensor([0.4, 0.5, 0.9]), 7.5, 0.5)
    assert safe.tolist() == pytest.approx([7.5 - 2 - 1, 7.5 - 0.5 / 0.09 - 1], rel=1e-5)
    assert unlabelled.tolist() == pytest.approx([0.0, 1.0, 9.0], rel=1e-5)


def test_levels_of_rgm_by_hand() -> None:
    residual = torch.tensor([math.log(1.0), math.log(3.0)])
    assert log_ratio(residual, 1.0).exp().tolist() == pytest.approx([0.5, 1.5])
    assert dual(residual, torch.tensor([2.0]), 1.0, 0.9).item() == pytest.approx(0.2 + math.log(2.0))
    demonstrations = torch.tensor([0.5, 1.5])
    assert gap(residual, demonstrations.log(), 1.0).item() == pytest.approx(0.0, abs=1e-6)
    assert gap(residual, torch.zeros(2), 1.0).item() == pytest.approx((0.5 * math.log(0.5) + 1.5 * math.log(1.5)) / 2)


def test_the_reward_correction_tells_demonstrations_from_the_rest() -> None:
    made, data = learner("rgm", correction_learning_rate=1e-2, learning_rate=1e-2), steps()
    sign = torch.where(torch.arange(ROWS) < ROWS // 2, 0.8, -0.8).unsqueeze(1).expand(ROWS, 2)
    data = Steps(**{**vars(data), "action": sign})
    for _ in range(40):
        metrics = made.learn(data)
    assert metrics["safe_correction"] > metrics["unlabelled_correction"] + 0.5
