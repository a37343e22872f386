"""Every numbered equation of FOSP on small cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from safe_policy_core.methods.fosp.equations import (
    discounted_bound,
    expansion_probabilities,
    expansion_utility,
    expectile_loss,
    lambda_returns,
    offline_weight,
    offline_weight_product,
    one_step_target,
    online_weight,
    recorded_targets,
    violation_target,
)


class TestExpectile:
    def minimiser(self, samples: torch.Tensor, expectile: float) -> float:
        value = torch.zeros((), requires_grad=True)
        optimiser = torch.optim.SGD([value], 0.5)
        for _ in range(300):
            optimiser.zero_grad()
            expectile_loss(samples, value.expand_as(samples), expectile).mean().backward()
            optimiser.step()
        return value.item()

    def test_values(self) -> None:
        # Q above V weighs kappa, Q below V weighs 1 - kappa.
        loss = expectile_loss(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 3.0]), 0.8)
        assert loss.tolist() == pytest.approx([0.8 * 4, 0.2 * 4])

    def test_half_is_the_mean(self) -> None:
        samples = torch.tensor([0.0, 1.0, 5.0])
        assert self.minimiser(samples, 0.5) == pytest.approx(2.0, abs=1e-4)

    def test_eight_tenths_leans_up(self) -> None:
        # 0.8 (1 - v) = 0.2 v for one 0 and one 1: v = 0.8.
        assert self.minimiser(torch.tensor([0.0, 1.0]), 0.8) == pytest.approx(0.8, abs=1e-4)
        assert self.minimiser(torch.tensor([0.0, 1.0]), 0.2) == pytest.approx(0.2, abs=1e-4)

    def test_no_gradient_to_q(self) -> None:
        q = torch.ones(2, requires_grad=True)
        value = torch.zeros(2, requires_grad=True)
        expectile_loss(q, value, 0.8).sum().backward()
        assert q.grad is None


class TestLambdaReturns:
    def test_three_steps_as_an_explicit_sum(self) -> None:
        rewards, values = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[10.0], [20.0], [30.0]])
        gamma, lam = 0.9, 0.8
        last = 3 + gamma * 30
        middle = 2 + gamma * (0.2 * 20 + lam * last)
        first = 1 + gamma * (0.2 * 10 + lam * middle)
        returns = lambda_returns(rewards, torch.ones(3, 1), values, gamma, lam)
        assert returns.flatten().tolist() == pytest.approx([first, middle, last])
        # The same as a mixture of n-step returns.
        one, two = 1 + gamma * 10, 1 + gamma * 2 + gamma**2 * 20
        three = 1 + gamma * 2 + gamma**2 * 3 + gamma**3 * 30
        assert first == pytest.approx((1 - lam) * one + (1 - lam) * lam * two + lam**2 * three)

    def test_nothing_follows_an_end(self) -> None:
        continues = torch.tensor([1.0, 0.0, 1.0])
        returns = lambda_returns(torch.tensor([1.0, 2.0, 3.0]), continues, torch.full((3,), 100.0), 0.9, 1.0)
        assert returns[1].item() == 2
        assert returns[0].item() == pytest.approx(1 + 0.9 * 2)

    def test_lambda_zero_is_one_step(self) -> None:
        returns = lambda_returns(torch.ones(2), torch.ones(2), torch.tensor([5.0, 7.0]), 0.5, 0.0)
        assert returns.tolist() == pytest.approx([1 + 2.5, 1 + 3.5])


def test_recorded_targets_by_hand() -> None:
    """Discount 1/2, lambda 1/2. The second window's middle step is across an episode's end, its first one ends one."""
    reward = torch.tensor([[1.0, 2.0, 4.0], [1.0, 9.0, 4.0]])
    value = torch.tensor([[10.0, 20.0, 40.0], [10.0, 20.0, 40.0]])
    terminal = torch.tensor([[False, False, False], [True, False, False]])
    whole = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    last = 4 + 40 / 2
    middle = 2 + (20 + last) / 2 / 2
    first = 1 + (10 + middle) / 2 / 2
    found = recorded_targets(reward, terminal, value, whole, 0.5, 0.5)
    torch.testing.assert_close(found[0], torch.tensor([first, middle, last]))
    assert (found[1, 0], found[1, 2]) == (1.0, last)
    # The step before the one that is not whole bootstraps at once; lambda 0 is eq. 10 everywhere.
    alone = recorded_targets(reward[:, 1:], terminal[:, 1:], value[:, 1:], torch.tensor([[1.0, 0.0]] * 2), 0.5, 0.5)
    assert alone[0, 0] == 2 + 20 / 2
    torch.testing.assert_close(recorded_targets(reward, terminal, value, whole, 0.5, 0.0),
                               one_step_target(reward, terminal, value, 0.5))


def test_one_step_target_stops_at_terminal_states() -> None:
    target = one_step_target(torch.tensor([1.0, 1.0]), torch.tensor([False, True]), torch.tensor([10.0, 10.0]), 0.9)
    assert target.tolist() == pytest.approx([10.0, 1.0])


def test_reachability_fixed_point_on_a_chain() -> None:
    # 0 -> 1 -> 2 -> 3 (costs, stays), and 4 -> 4 which never costs.
    successor, cost = torch.tensor([1, 2, 3, 3, 4]), torch.tensor([0.0, 0, 0, 1, 0])
    probability = torch.full((5,), 0.5)
    for _ in range(3000):
        probability = violation_target(cost, probability[successor], 0.99)
    assert probability.tolist() == pytest.approx([0.99**3, 0.99**2, 0.99, 1.0, 0.0], abs=1e-6)


class TestWeights:
    def test_offline(self) -> None:
        weight = offline_weight(torch.tensor([0.75]), torch.tensor([0.1]), torch.tensor([0.2]), 10.0, 5.0, 100.0)
        assert weight.item() == pytest.approx(0.75 * math.e + 0.25 * math.exp(-1))

    def test_offline_exponentials_are_clipped_one_by_one(self) -> None:
        weight = offline_weight(torch.tensor([0.25]), torch.tensor([5.0]), torch.tensor([-5.0]), 10.0, 10.0, 100.0)
        assert weight.item() == pytest.approx(100)
        weight = offline_weight(torch.tensor([0.25]), torch.tensor([5.0]), torch.tensor([0.0]), 10.0, 10.0, 100.0)
        assert weight.item() == pytest.approx(25 + 0.75)

    def test_in_the_product_reward_cannot_outvote_danger(self) -> None:
        arguments = torch.tensor([0.1]), torch.tensor([1.0]), torch.tensor([1.0]), 10.0, 10.0, 100.0
        # A fast way through an obstacle where a violation is likely: u = 0.1.
        assert offline_weight(*arguments).item() == pytest.approx(0.1 * 100 + 0.9 * math.exp(-10))
        assert offline_weight_product(*arguments).item() == pytest.approx(math.exp(0.1 * 10 - 0.9 * 10))

    def test_online(self) -> None:
        weight = online_weight(torch.tensor([0.75]), torch.tensor([0.1]), torch.tensor([0.2]), 10.0, 5.0)
        assert weight.item() == pytest.approx(0.75 * 10 * 0.1 - 0.25 * 5 * 0.2)


class TestExpansion:
    def test_utility(self) -> None:
        assert expansion_utility(torch.tensor(3.0), torch.tensor(2.0), 6.0, 4.0).item() == pytest.approx(0.0)
        assert expansion_utility(torch.tensor(3.0), torch.tensor(1.0), 6.0, 4.0).item() == pytest.approx(0.25)

    def test_probabilities(self) -> None:
        probabilities = expansion_probabilities(torch.tensor([0.25, 0.0]), 0.1)
        assert probabilities.tolist() == pytest.approx([1 / (1 + math.exp(-2.5)), 1 / (1 + math.exp(2.5))])
        even = expansion_probabilities(torch.tensor([0.25, 0.0]), 10.0)
        assert even.tolist() == pytest.approx([0.50625, 0.49375], abs=1e-4)

    def test_bound(self) -> None:
        assert discounted_bound(2.0, 0.5, 2) == pytest.approx(2 + 1 + 0.5)
        assert discounted_bound(2.0, 1.0, 2) == 6
