"""The FOSP learner: gradients, masks, determinism, expansion."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Learner, Spec, Specs
from safe_policy_core.methods.fosp import FospLearner
from safe_policy_core.methods.fosp.actor_loss import imitation_loss, penalty_loss, policy_gradient_loss
from safe_policy_core.methods.fosp.estimators import Advantages, Reachability
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.world_model import real_steps, to_batch
from tests.core.fosp_rig import IMAGE_SPECS, STATE_SPECS, learner, random_batch, tiny_config, train, weights

torch.set_num_threads(1)


def prepared(one: FospLearner) -> tuple:
    """Recorded steps, rollout features with graph, imagined steps and both advantages of one batch."""
    batch = to_batch(random_batch(one.specs), one.specs, "cpu")
    _, states, _ = one.model.world_model.loss(batch, one.generator)
    states = states.detach()
    real, _ = real_steps(states.features, batch)
    features, imagined = one._imagine(states, batch["is_terminal"])
    advantages = [estimator.loss(real, imagined)[1] for estimator in (one.model.reward, one.model.cost)]
    return real, features, imagined, *advantages


class TestRealSteps:
    def test_steps_across_episodes_and_windows_do_not_count(self) -> None:
        batch = to_batch(random_batch(STATE_SPECS), STATE_SPECS, "cpu")
        real, has_next = real_steps(torch.arange(24.0).view(3, 8, 1), batch)
        assert real.mask.view(3, 7).tolist() == [[1.0] * 7, [1, 1, 1, 0, 1, 1, 1], [1.0] * 7]
        assert has_next.sum() == 20
        # The step at row 2 of sequence 1: action taken there, everything else received on arriving at row 3.
        index = 7 + 2
        assert (real.features[index].item(), real.next_features[index].item()) == (10, 11)
        assert torch.equal(real.action[index], batch["next_action"][1, 2])
        assert (real.reward[index], real.cost[index]) == (batch["reward"][1, 3], batch["cost"][1, 3])
        assert bool(real.next_terminal[index])


class TestEstimators:
    @pytest.mark.parametrize(("kind", "cost_discount", "gamma"),
                             [("reward", 0.5, 0.97), ("cost", None, 0.97), ("cost", 0.5, 0.5)])
    def test_critic_targets_on_recorded_and_imagined_steps(self, kind: str, cost_discount: float | None, gamma: float
                                                           ) -> None:
        one = learner(slow_scale=0.0, expectile=0.8, horizon=1, imagination_starts=4, cost_discount=cost_discount)
        estimator = getattr(one.model, kind)
        torch.nn.init.normal_(estimator.critic.networks[0].output.weight)
        torch.nn.init.normal_(estimator.value.network.output.weight)
        real, _, imagined, *_ = prepared(one)
        loss, _, _ = estimator.loss(real, imagined)
        with torch.no_grad():
            target = getattr(real, kind) + gamma * (~real.next_terminal) * estimator.value(real.next_features)
            both = torch.stack([network(torch.cat([real.features, real.action], -1)).squeeze(-1)
                                for network in estimator.critic.networks])
            slow = estimator.critic(real.features, real.action, slow=True)
            value = estimator.value(real.features)
            error = slow - value
            each = (both - target).square().sum(0) + torch.where(error < 0, 0.2, 0.8) * error.square()
            expected = (each * real.mask).sum() / real.mask.sum()
            start, arrived = imagined.features
            target = getattr(imagined, kind)[0] + gamma * imagined.continues[0] * estimator.value(arrived)
            both = torch.stack([network(torch.cat([start, imagined.action[0]], -1)).squeeze(-1)
                                for network in estimator.critic.networks])
            error = estimator.critic(start, imagined.action[0], slow=True) - estimator.value(start)
            each = (both - target).square().sum(0) + torch.where(error < 0, 0.2, 0.8) * error.square()
            expected = expected + (each * imagined.weight[0]).sum() / imagined.weight[0].sum()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)

    def test_direction_of_the_expectiles(self) -> None:
        for direction, cost in (("pessimistic", 0.8), ("optimistic", 0.2)):
            model = learner(cost_direction=direction).model
            assert model.reward.expectile == 0.8
            assert model.cost.expectile == pytest.approx(cost)
        model = learner(in_sample=False).model
        assert (model.reward.expectile, model.cost.expectile) == (0.5, 0.5)

    def test_without_in_sample_recorded_actions_do_not_matter(self) -> None:
        for in_sample in (True, False):
            one = learner(in_sample=in_sample)
            torch.nn.init.normal_(one.model.cost.critic.networks[0].output.weight)
            real, _, imagined, *_ = prepared(one)
            other = dataclasses.replace(real, action=-real.action)
            same = one.model.cost.loss(real, imagined)[0] == one.model.cost.loss(other, imagined)[0]
            assert bool(same) is not in_sample

    def test_imagination_stops_counting_after_an_end(self) -> None:
        one = learner()
        _, _, imagined, *_ = prepared(one)
        alive = imagined.weight[0]
        assert set(alive.tolist()) <= {0.0, 1.0}
        assert torch.allclose(imagined.weight[2], alive * imagined.continues[0] * imagined.continues[1])

    def test_cost_critic_is_pessimistic_upwards(self) -> None:
        model = learner().model
        assert (model.reward.critic.pessimism, model.cost.critic.pessimism) == ("min", "max")


class TestReachability:
    def test_fixed_point_on_a_chain(self) -> None:
        # Rows 0 1 2 3 of sequence 0 end in a cost; sequence 1 terminates safely; one-hot features.
        torch.manual_seed(0)
        reachability = Reachability(8, tiny_config(reachability_discount=0.9, slow_rate=0.2))
        features = torch.eye(8).view(2, 4, 8)
        cost = torch.tensor([[0.0, 0, 0, 2], [0, 0, 0, 0]])
        terminal = torch.tensor([[False] * 4, [False] * 3 + [True]])
        has_next = torch.ones(2, 3, dtype=torch.bool)
        optimiser = Optimiser(reachability, 0.03, 100)
        for _ in range(400):
            optimiser.step(reachability.loss(features, cost, terminal, has_next))
            reachability.update_slow()
        probability = reachability.violation_probability(features)
        assert probability[0].tolist() == pytest.approx([0.9**3, 0.9**2, 0.9, 1.0], abs=0.03)
        assert probability[1].max() < 0.05
        assert torch.allclose(reachability.feasibility(features), 1 - probability)

    def test_rows_without_a_known_successor_are_left_out(self) -> None:
        reachability = Reachability(3, tiny_config())
        features = torch.randn(1, 3, 3)
        none = torch.zeros(1, 3)
        # Truncated at row 0 and cut at the window's end: only rows 1 has a target.
        has_next = torch.tensor([[False, True]])
        loss = reachability.loss(features, none, none.bool(), has_next)
        slow = reachability.slow(features[:, 2]).squeeze(-1).sigmoid()
        target = 0.99 * slow
        p = reachability.violation_probability(features[:, 1])
        expected = -(target * p.log() + (1 - target) * (1 - p).log())
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


class TestActorLoss:
    @pytest.mark.parametrize("form", ["sum", "product"])
    def test_imitation_is_weighted_likelihood_by_hand(self, form: str) -> None:
        one = learner(entropy=0.01, reward_temperature=2.0, cost_temperature=3.0, weight_form=form)
        real, *_ = prepared(one)
        advantage, cost_advantage = 0.3 * torch.randn(2, len(real.mask))
        loss, _ = imitation_loss(one.model, real, Advantages(advantage, advantage),
                                 Advantages(cost_advantage, cost_advantage))
        with torch.no_grad():
            u = 1 - one.model.reachability.violation_probability(real.features)
            weight = u * (2 * advantage).exp() + (1 - u) * (-3 * cost_advantage).exp() if form == "sum" \
                else (u * 2 * advantage - (1 - u) * 3 * cost_advantage).exp()
            distribution = one.model.actor(real.features)
            normal = torch.distributions.Normal(distribution.mean, distribution.deviation)
            each = weight * normal.log_prob(real.action).sum(-1) + 0.01 * normal.entropy().sum(-1)
        assert loss.item() == pytest.approx(-(each * real.mask).sum().item() / real.mask.sum().item(), rel=1e-4)

    def test_better_actions_pull_harder(self) -> None:
        one = learner()
        real, *_ = prepared(one)
        good = torch.zeros(len(real.mask))
        good[3] = 1.0
        rest = Advantages(torch.zeros_like(good), torch.zeros_like(good))

        def gradient(reward: torch.Tensor) -> torch.Tensor:
            loss, _ = imitation_loss(one.model, real, Advantages(reward, reward), rest)
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(one.model.actor.parameters()))])

        alone = dataclasses.replace(real, mask=torch.zeros_like(real.mask))
        alone.mask[3] = 1.0
        loss, _ = imitation_loss(one.model, alone, rest, rest)
        towards = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(one.model.actor.parameters()))])
        assert torch.dot(gradient(good) - gradient(good * 0), towards) > 0

    def test_policy_gradient_by_hand(self) -> None:
        one = learner(entropy=0.0)
        _, _, imagined, *_ = prepared(one)
        advantages = torch.randn(2, *imagined.weight.shape)
        loss, _ = policy_gradient_loss(one.model, imagined, Advantages(advantages[0], advantages[0]),
                                       Advantages(advantages[1], advantages[1]))
        with torch.no_grad():
            p = one.model.reachability.violation_probability(imagined.features[:-1])
            weight = (1 - p) * 10 * advantages[0] - p * 10 * advantages[1]
            likelihood = one.model.actor(imagined.features[:-1]).draw_log_probability(imagined.action)
        expected = -(weight * likelihood * imagined.weight).sum() / imagined.weight.sum()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)

    @pytest.mark.parametrize("augmented", [True, False])
    def test_penalty_reaches_the_actor_through_the_dynamics_and_nothing_else(self, augmented: bool) -> None:
        one = learner(augmented_lagrangian=augmented)
        for network in (one.model.cost.value.network, one.model.reachability.network):
            torch.nn.init.normal_(network.output.weight)
        _, features, imagined, *_ = prepared(one)
        penalty, _ = penalty_loss(one.model, features, imagined)
        gradients = torch.autograd.grad(penalty, list(one.model.actor.parameters()), retain_graph=True)
        assert max(gradient.abs().max() for gradient in gradients) > 0
        before = {name: weights(part) for name, part in one.model.named_children()
                  if name not in ("actor", "lagrangian")}
        Optimiser(one.model.actor, 0.1, 1.0).step(penalty)
        for name, part in one.model.named_children():
            if name in before:
                assert torch.equal(weights(part), before[name]), name
                assert all(parameter.grad is None for parameter in part.parameters()), name

    def test_penalty_by_hand(self) -> None:
        one = learner(initial_multiplier=0.5, initial_penalty=0.2, cost_limit=0.1)
        torch.nn.init.normal_(one.model.cost.value.network.output.weight, std=0.2)
        _, features, imagined, *_ = prepared(one)
        penalty, constraint = penalty_loss(one.model, features, imagined)
        with torch.no_grad():
            g = one.model.cost.value(features[1:]) - 0.1
            assert (g > -5).all()
            u = 1 - one.model.reachability.violation_probability(features[1:])
            each = u * (0.5 * g + 0.05 * g.square())
            expected = (each * imagined.weight).sum() / imagined.weight.sum()
        assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
        mean = (g * imagined.weight).sum() / imagined.weight.sum()
        assert constraint.item() == pytest.approx(mean.item(), rel=1e-4)


class TestLearner:
    def test_is_a_learner_and_metrics_are_finite(self) -> None:
        one = learner(IMAGE_SPECS)
        assert isinstance(one, Learner)
        metrics = train(one, 2)
        assert all(np.isfinite(value) for value in metrics.values())
        assert {"model/image", "actor/weight", "reachability/loss", "lagrangian/multiplier"} <= metrics.keys()

    def test_every_part_learns(self) -> None:
        one = learner()
        before = {name: weights(part) for name, part in one.model.named_children() if name != "lagrangian"}
        train(one, 2)
        for name, part in one.model.named_children():
            if name != "lagrangian":
                assert not torch.equal(weights(part), before[name]), name

    def test_same_seed_same_weights_other_seed_other_weights(self) -> None:
        runs = []
        for seed, disturb in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(disturb)
            one = learner(IMAGE_SPECS, seed)
            train(one, 3)
            runs.append(weights(one.model))
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])

    @pytest.mark.parametrize("changes", [{"two_hot_critics": True}, {"in_sample": False}, {"reachability": False},
                                         {"augmented_lagrangian": False}, {"expansion": False},
                                         {"imagination_starts": 0}, {"online_imitation": 0.5}])
    def test_every_switch_trains_offline_and_online(self, changes: dict[str, object]) -> None:
        one = learner(**changes)
        train(one, 1)
        one.start_fine_tuning()
        assert all(np.isfinite(value) for value in train(one, 1).values())

    def test_without_reachability_every_state_counts_as_feasible(self) -> None:
        one = learner(reachability=False)
        assert one.model.feasibility(torch.randn(3, one.model.world_model.feature_size)).tolist() == [1, 1, 1]

    def test_other_action_bounds_are_refused(self) -> None:
        specs = Specs(STATE_SPECS.observation, Spec("action", (2,), "float32", -2.0, 2.0))
        with pytest.raises(ConfigurationError, match=r"action: .*expected a vector in \[-1, 1\]"):
            learner(specs)

    def test_pictures(self) -> None:
        one = learner(IMAGE_SPECS)
        batch = random_batch(IMAGE_SPECS)
        decoded = one.reconstruct(batch)
        assert decoded["image"].dtype == np.uint8
        assert decoded["image"].shape == batch["image"].shape
        assert decoded["pose"].shape == batch["pose"].shape
        recorded, own = (one.imagine_video(batch, 3, own_actions=own)["image"] for own in (False, True))
        assert recorded.shape == batch["image"].shape
        assert np.array_equal(recorded[:, :3], decoded["image"][:, :3])
        assert not np.array_equal(recorded[:, 4:], own[:, 4:])


class TestExpansion:
    def test_two_parameter_sets_and_the_frozen_one_never_changes(self) -> None:
        one = learner()
        train(one, 2)
        one.start_fine_tuning()
        model = one.model
        assert model.offline_actor is not None
        mine = {id(parameter) for parameter in model.actor.parameters()}
        assert not mine & {id(parameter) for parameter in model.offline_actor.parameters()}
        frozen, new = weights(model.offline_actor), weights(model.actor)
        assert torch.equal(frozen, new)
        train(one, 3)
        assert torch.equal(weights(model.offline_actor), frozen)
        assert not torch.equal(weights(model.actor), new)
        one.start_fine_tuning()
        assert torch.equal(weights(model.offline_actor), frozen)

    def test_a_fresh_actor_differs_from_the_offline_one(self) -> None:
        one = learner(new_actor="fresh")
        before = weights(one.model.actor)
        one.start_fine_tuning()
        assert one.model.offline_actor is not None
        assert torch.equal(weights(one.model.offline_actor), before)
        assert not torch.equal(weights(one.model.actor), before)

    def test_without_expansion_the_one_actor_goes_on(self) -> None:
        one = learner(expansion=False)
        one.start_fine_tuning()
        assert one.model.offline_actor is None
        assert one.online

    def test_choice_follows_the_utilities(self) -> None:
        one = learner(new_actor="fresh", expansion_temperature=0.5, largest_return=2.0, largest_cost_return=4.0)
        one.start_fine_tuning()
        model = one.model
        assert model.offline_actor is not None
        for estimator in (model.reward, model.cost):
            for network in estimator.critic.networks:
                torch.nn.init.normal_(network.output.weight, std=0.5)
        torch.nn.init.normal_(model.offline_actor.network.output.weight)
        features = torch.randn(1, model.world_model.feature_size).expand(4000, -1)
        with torch.no_grad():
            state = features[:1]
            actions = [actor(state).mode for actor in (model.offline_actor, model.actor)]
            utility = [model.reward.critic(state, action) / 2 - model.cost.critic(state, action) / 4
                       for action in actions]
            best = int(utility[1] > utility[0])
            chosen = model.choose(state, torch.Generator(), greedy=True)
            assert int(chosen.policy) == best
            assert torch.equal(chosen.action, actions[best])
            # Deviations of the two actors cut to nothing: the draws must follow eq. 21 at the modes.
            for actor in (model.offline_actor, model.actor):
                actor.network.output.bias[2:] = -100
            noise = model.choose(features, torch.Generator().manual_seed(0))
        assert set(noise.policy.tolist()) == {0, 1}
        nearest = torch.stack([(noise.action - action).abs().amax(-1) for action in actions]).argmin(0)
        assert (nearest == noise.policy).float().mean() > 0.9

    def test_bounds_of_the_utility_are_the_papers_sums(self) -> None:
        one = learner(discount=0.5, episode_length=2)
        one.model.largest_reward.fill_(2.0)
        one.model.largest_cost.fill_(4.0)
        for estimator, value in ((one.model.reward, 7.0), (one.model.cost, 3.5)):
            for network in estimator.critic.networks:
                network.output.bias.data.fill_(value)
        utility = one.model.utility(torch.zeros(1, one.model.world_model.feature_size), torch.zeros(1, 2))
        assert utility.item() == pytest.approx(7 / 3.5 - 3.5 / 7)
