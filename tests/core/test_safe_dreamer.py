"""SafeDreamer: the penalty in both branches, the constrained planner, and what it learns beside Dreamer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.dreamer.learner import DreamerLearner, Experience
from safe_policy_core.methods.dreamer.planner import Courses, PlannerConfig, plan, safest_or_best
from safe_policy_core.world_model import ImaginedSteps
from tests.core.imagination_rig import experience, imagination_learner

torch.set_num_threads(1)


class TestPenalty:
    def loss_of(self, gradient: str, multiplier: float, limit: float) -> tuple:
        """The learner, its losses without and with the constraint, returns, values and likelihoods of the costs."""
        one = imagination_learner("safe_dreamer", actor_gradient=gradient, initial_multiplier=multiplier,
                                  initial_penalty=0.5, penalty_growth=0.1, cost_limit=limit)
        steps = experience(one)
        returns = {"reward": torch.zeros(3, 16), "cost": torch.rand(3, 16, generator=torch.Generator().manual_seed(1))}
        distribution = one.model.actor(steps.imagined.features[:-1])
        plain, _ = DreamerLearner.actor_loss(one, steps, returns, distribution)
        loss, _ = one.actor_loss(steps, returns, distribution)
        return one, (loss - plain).item(), steps.imagined, returns["cost"], distribution

    def test_active_branch_and_the_multiplier(self) -> None:
        one, penalty, imagined, cost, _ = self.loss_of("dynamics", 0.2, 0.1)
        delta = cost - 0.1
        expected = imagined.mean(0.2 * delta + 0.5 / 4 * delta.square())
        assert penalty == pytest.approx(expected.item(), rel=1e-4)
        assert one.model.lagrangian.multiplier.item() == pytest.approx(
            0.2 + 0.25 * imagined.mean(delta).item(), rel=1e-5)
        assert one.model.lagrangian.penalty.item() == pytest.approx(0.55)

    def test_inactive_branch_and_the_multiplier(self) -> None:
        one, penalty, *_ = self.loss_of("dynamics", 0.2, 10.0)
        assert penalty == pytest.approx(-0.04 / 0.5, rel=1e-4)
        assert one.model.lagrangian.multiplier.item() == 0

    def test_reinforce_weighs_the_likelihood_with_the_rise_of_the_penalty(self) -> None:
        _, penalty, imagined, cost, distribution = self.loss_of("reinforce", 0.2, 0.1)
        # The critic still says 0, so the baseline is Psi(-0.1).
        rise = (0.2 * (cost - 0.1) + 0.125 * (cost - 0.1).square()) - (0.2 * -0.1 + 0.125 * 0.01)
        expected = imagined.mean(rise * distribution.draw_log_probability(imagined.action))
        assert penalty == pytest.approx(expected.item(), rel=1e-3)

    def test_cost_pushes_the_actor_away(self) -> None:
        one = imagination_learner("safe_dreamer", actor_gradient="reinforce", initial_multiplier=5.0, entropy=0.0,
                                  actor_learning_rate=3e-3)
        steps = experience(one)
        cost = (steps.imagined.action[..., 0] > 0).float()
        returns = {"reward": torch.zeros_like(cost), "cost": cost}
        for _ in range(30):
            loss, _ = one.actor_loss(steps, returns, one.model.actor(steps.imagined.features[:-1]))
            one.optimisers["actor"].step(loss)
        assert one.model.actor(steps.imagined.features[:-1]).mean[..., 0].mean() < -0.1


class TestPlanner:
    def test_safest_or_best(self) -> None:
        returns, costs = torch.tensor([5.0, 4.0, 3.0, 2.0]), torch.tensor([0.9, 0.0, 0.3, 0.1])
        assert safest_or_best(returns, costs, 0.3, 2).tolist() == [1, 2]
        # Only one is safe: by cost.
        assert safest_or_best(returns, costs, 0.05, 2).tolist() == [1, 3]

    @pytest.mark.parametrize("limit", [0.1, 100.0])
    def test_safe_optimum_of_a_known_world(self, limit: float) -> None:
        """A point in a plane from (-1, 0) to (1, 0) in 5 steps of at most 0.5; a disc of 0.3 lies between."""
        def rate(courses: Tensor) -> tuple[Tensor, Tensor]:
            place = torch.tensor([-1.0, 0.0]) + 0.5 * courses.cumsum(0)
            return -(place[-1] - torch.tensor([1.0, 0.0])).norm(dim=-1), (place.norm(dim=-1) < 0.3).float().sum(0)

        config = PlannerConfig(candidates=200, best=20, iterations=8, horizon=5, deviation=0.6, cost_limit=limit)
        straight = torch.tensor([0.8, 0.0]).expand(5, 1, 2)  # through the disc, the best without a limit
        best = plan(rate, straight, torch.zeros(5, 2), config, torch.Generator().manual_seed(0))
        found, cost = rate(best.unsqueeze(1))
        assert found.item() > -0.2
        assert cost.item() == (0 if limit < 1 else 2)

    def test_proposals_are_among_the_candidates(self) -> None:
        # Far from the mean and its deviation lies the only course that is worth anything.
        config = PlannerConfig(candidates=8, best=2, iterations=2, horizon=2, deviation=0.01)
        course = torch.full((2, 1, 1), 0.9)
        best = plan(lambda courses: ((courses > 0.8).float().sum((0, 2)), torch.zeros(courses.shape[1])), course,
                    torch.zeros(2, 1), config, torch.Generator().manual_seed(0))
        assert best.flatten().tolist() == pytest.approx([0.9, 0.9])

    def test_rating_by_hand(self) -> None:
        one = imagination_learner("safe_dreamer", discount=0.5)
        model = one.model
        torch.nn.init.ones_(model.reward_critic.network.output.bias)
        features = torch.randn(3, 1, model.feature_size)
        weight = torch.tensor([[1.0], [0.8], [0.4]])
        for head, value in ((model.world_model.reward_head, 1.0), (model.world_model.cost_head, 2.0)):
            position = (np.log1p(value) + 20) / 40 * 254
            head.output.bias.data.copy_(-10 * (torch.arange(255) - position).abs())
        reward, cost = (head(features[1]).item() for head in (model.world_model.reward, model.world_model.cost))
        returns, costs = model.rate(Courses(features, torch.zeros(2, 1, 2), weight))
        assert returns.item() == pytest.approx(reward * (1 + 0.5 * 0.8) + 0.25 * 0.4 * 1, rel=1e-5)
        assert costs.item() == pytest.approx(1.8 * cost, rel=1e-5)

    def test_policy_plans_from_the_episodes_seed(self) -> None:
        planner = PlannerConfig(candidates=6, best=2, from_actor=2)
        policy = imagination_learner("safe_dreamer", planner=planner).policy()
        actions = []
        for seed in (1, 1, 2):
            policy.reset(seed)
            actions.append([policy.act({"vector": np.zeros(2, np.float32)}).action for _ in range(2)])
        np.testing.assert_array_equal(actions[0], actions[1])
        assert not np.array_equal(actions[0], actions[2])

    def test_numbers_that_make_no_sense(self) -> None:
        for changes in ({"candidates": 4, "best": 5}, {"candidates": -1}, {"horizon": 0}, {"from_actor": -1}):
            with pytest.raises(ConfigurationError, match="planner"):
                PlannerConfig(**changes)


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_it_stays_where_dreamer_goes_too_far(gradient: str) -> None:
    """In a known world an action a earns a, and costs 5 (a - 0.2) above 0.2."""
    reached = {}
    for method in ("dreamer", "safe_dreamer"):
        changes = {"initial_multiplier": 0.5, "initial_penalty": 1e-4} if method == "safe_dreamer" else {}
        one = imagination_learner(method, actor_gradient=gradient, actor_learning_rate=0.01, entropy=0.0, **changes)
        features = torch.randn(2, 256, one.model.feature_size, generator=one.generator)
        ones = torch.ones(1, 256)
        for _ in range(150):
            distribution = one.model.actor(features[:1])
            action = distribution.sample(torch.randn(1, 256, 2, generator=one.generator))
            steps = Experience(None, None, features, ImaginedSteps(features, action.detach(), ones, ones, ones, ones))
            returns = {"reward": action[..., 0], "cost": 5 * (action[..., 0] - 0.2).relu()}
            if gradient == "reinforce":
                returns = {name: value.detach() for name, value in returns.items()}
            one.optimisers["actor"].step(one.actor_loss(steps, returns, distribution)[0])
        reached[method] = one.model.actor(features[:1]).mode[..., 0].mean().item()
    assert reached["dreamer"] > 0.8
    assert -0.3 < reached["safe_dreamer"] < 0.3
