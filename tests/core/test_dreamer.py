"""DreamerV3: returns, both gradients, the ensemble, and what all learners that inherit from it share."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Learner
from safe_policy_core.methods.dreamer import DreamerLearner
from safe_policy_core.methods.dreamer.actor_loss import actor_loss, expected
from safe_policy_core.methods.dreamer.critic import StateCritic
from safe_policy_core.methods.dreamer.disagreement import Disagreement
from safe_policy_core.methods.overrides import preset
from safe_policy_core.methods.registry import learner_class, load_learner, load_policy, make_learner
from safe_policy_core.networks.distributions import BoundedGaussian
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.training.online import FineTuner
from safe_policy_core.vision import ToolViewConfig
from safe_policy_core.world_model import ImaginedSteps, LatentState
from tests.core.fosp_rig import IMAGE_SPECS, STATE_SPECS, random_batch, weights
from tests.core.imagination_rig import METHODS, experience, imagination_learner
from tests.core.point_env import SPECS, demonstrations
from tests.core.test_vision import ABOVE

torch.set_num_threads(1)


def steps(features: torch.Tensor, weight: torch.Tensor, action: torch.Tensor | None = None) -> ImaginedSteps:
    """Imagined steps of which nothing else matters."""
    zeros = torch.zeros_like(weight)
    return ImaginedSteps(features, zeros.unsqueeze(-1) if action is None else action, zeros, zeros, zeros, weight)


class TestCritic:
    def critic(self, two_hot: bool = False) -> StateCritic:
        return StateCritic(1, 4, 0, two_hot=two_hot, slow_rate=0.5, slow_scale=2.0)

    def test_lambda_returns_by_hand(self) -> None:
        critic = self.critic()
        torch.nn.init.ones_(critic.network.output.weight)  # V(s) = s
        features = torch.tensor([9.0, 2.0, 4.0]).view(3, 1, 1)
        received, continues = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [0.5]])
        returns = critic.returns(features, received, continues, discount=0.9, blend=0.6)
        last = 3 + 0.9 * 0.5 * 4
        assert returns[:, 0].tolist() == pytest.approx([1 + 0.9 * (0.4 * 2 + 0.6 * last), last])

    def test_loss_by_hand_and_the_slow_copy(self) -> None:
        critic = self.critic()
        torch.nn.init.ones_(critic.network.output.weight)
        imagined = steps(torch.tensor([1.0, 2.0, 0.0, 0.0]).view(2, 2, 1), torch.tensor([[1.0, 0.5]]))
        # Errors 1 - 3 and 2 - 3; the slow copy still says 0, so the pull is V^2 twice.
        loss = critic.loss(imagined, torch.full((1, 2), 3.0))
        assert loss.item() == pytest.approx(((4 + 2 * 1) + 0.5 * (1 + 2 * 4)) / 1.5)
        critic.update_slow()
        assert critic.slow.output.weight.item() == 0.5

    def test_two_hot_critic_learns_a_number(self) -> None:
        torch.manual_seed(0)
        critic, optimiser = self.critic(two_hot=True), None
        optimiser = Optimiser(critic, 0.3, 100)
        imagined = steps(torch.ones(2, 4, 1), torch.ones(1, 4))
        for _ in range(80):
            optimiser.step(critic.loss(imagined, torch.full((1, 4), 2.5)))
            critic.update_slow()
        assert critic(torch.ones(1)).item() == pytest.approx(2.5, abs=0.05)


class TestActorLoss:
    def test_reinforce_by_hand(self) -> None:
        distribution = BoundedGaussian(torch.zeros(1, 2, 2))
        imagined = steps(torch.zeros(2, 2, 1), torch.tensor([[1.0, 0.25]]), torch.tensor([0.5, -0.2]).view(1, 2, 1))
        returns, values = torch.tensor([[6.0, 2.0]]), torch.tensor([[1.0, 4.0]])
        loss, _ = actor_loss(imagined, distribution, returns, values, torch.tensor(4.0), 0.1, reinforce=True)
        deviation = 0.9 / (1 + math.exp(-2)) + 0.1
        likelihood = [-0.5 * (a / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi)) for a in (0.5, -0.2)]
        entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(deviation)
        each = [5 / 4 * likelihood[0] + 0.1 * entropy, -2 / 4 * likelihood[1] + 0.1 * entropy]
        assert loss.item() == pytest.approx(-(each[0] + 0.25 * each[1]) / 1.25, rel=1e-5)

    def test_dynamics_by_hand(self) -> None:
        distribution = BoundedGaussian(torch.zeros(1, 2, 2))
        imagined = steps(torch.zeros(2, 2, 1), torch.tensor([[1.0, 0.25]]))
        returns = torch.tensor([[6.0, 2.0]], requires_grad=True)
        loss, _ = actor_loss(imagined, distribution, returns, returns.detach(), torch.tensor(4.0), 0.0, reinforce=False)
        assert loss.item() == pytest.approx(-(6 / 4 + 0.25 * 2 / 4) / 1.25)
        gradient, = torch.autograd.grad(loss, returns)
        assert gradient[0].tolist() == pytest.approx([-0.25 / 1.25, -0.0625 / 1.25])

    def test_both_estimates_agree_with_the_expectation(self) -> None:
        # R(a) = 3 a under a Gaussian of mean m: the objective R^2 has the gradient 2 * 9 m.
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn(400_000, 1, generator=generator)
        found = []
        for reinforce in (False, True):
            mean = torch.tensor(0.3, requires_grad=True)
            action = mean + 0.5 * normal.squeeze(-1)
            taken = action.detach() if reinforce else action
            likelihood = -0.5 * ((taken - mean) / 0.5).square() if reinforce else None
            term = expected(torch.square, 3 * taken, torch.full_like(taken, 0.9), likelihood)
            found.append(torch.autograd.grad(term.mean(), mean)[0].item())
        assert found == pytest.approx([18 * 0.3] * 2, rel=0.02)

    def test_scale_is_the_percentile_range_and_at_least_one(self) -> None:
        one = imagination_learner("dreamer")
        one.model.scale.update(torch.linspace(0, 100, 101))
        assert one.model.scale.scale().item() == pytest.approx(90)
        one.model.scale.low.zero_()
        one.model.scale.high.fill_(0.2)
        assert one.model.scale.scale().item() == 1


class TestDisagreement:
    def test_by_hand(self) -> None:
        one = imagination_learner("dreamer", ensemble=2, unimix=0.0)
        disagreement = one.model.disagreement
        assert disagreement is not None
        for member, logit in zip(disagreement.members, (0.0, 2.0), strict=True):
            torch.nn.init.zeros_(member.output.weight)
            torch.nn.init.zeros_(member.output.bias)
            with torch.no_grad():
                member.output.bias[0] = logit
        # Only the first of the four latents differs: log 1/4 against log of e^2 / (e^2 + 3) for its first class.
        features = torch.zeros(1, one.model.feature_size)
        features[0, 16::4] = 1.0
        difference = 2 - math.log(math.exp(2) + 3) + math.log(4)
        assert disagreement(features).item() == pytest.approx(abs(difference) / math.sqrt(2), rel=1e-4)

    def test_members_learn_and_disagree_less(self) -> None:
        torch.manual_seed(0)
        one = imagination_learner("dreamer")
        disagreement = Disagreement(one.model.world_model.rssm, 3)
        states = LatentState(torch.randn(32, 16), torch.nn.functional.one_hot(
            torch.zeros(32, 4, dtype=torch.long), 4).flatten(1).float())
        before, optimiser = disagreement(states.features).mean(), Optimiser(disagreement, 0.01, 100)
        first = disagreement.loss(states).item()
        for _ in range(60):
            optimiser.step(disagreement.loss(states))
        assert disagreement.loss(states).item() < first / 4
        assert disagreement(states.features).mean() < before / 2

    def test_is_taken_from_the_reward_offline_alone(self) -> None:
        one = imagination_learner("dreamer", uncertainty=0.5, discount=0.0)
        steps_ = experience(one)
        offline = one.returns(steps_)["reward"]
        one.start_fine_tuning()
        online = one.returns(steps_)["reward"]
        assert one.model.disagreement is not None
        assert torch.allclose(online - offline, 0.5 * one.model.disagreement(steps_.rollout[1:]), atol=1e-6)
        assert (online - offline).max() > 0


def test_dreamer_sees_no_cost() -> None:
    batch = random_batch(STATE_SPECS)
    costly = batch | {"cost": batch["cost"] + 1}
    assert imagination_learner("dreamer").update(batch) == imagination_learner("dreamer").update(costly)
    assert imagination_learner("safe_dreamer").update(batch) != imagination_learner("safe_dreamer").update(costly)


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_the_actor_learns_and_its_loss_changes_nothing_else(gradient: str) -> None:
    one = imagination_learner("safe_dreamer", actor_gradient=gradient, entropy=0.0)
    for network in (one.model.world_model.reward_head, one.model.reward_critic.network):
        torch.nn.init.normal_(network.output.weight)
    steps_ = experience(one)
    before = {name: weights(part) for name, part in one.model.named_children() if [*part.parameters()]}
    loss, _ = one.actor_loss(steps_, one.returns(steps_), one.model.actor(steps_.imagined.features[:-1]))
    assert one.optimisers["actor"].step(loss) > 0
    changed = [name for name, old in before.items() if not torch.equal(weights(getattr(one.model, name)), old)]
    assert changed == ["actor"]


@pytest.mark.parametrize("method", METHODS)
class TestEveryLearner:
    def test_is_a_learner_with_the_presets_of_fosp(self, method: str) -> None:
        assert isinstance(imagination_learner(method), Learner)
        for name in ("small", "tabletop", "full"):
            mine, reference = preset(method, name), preset("fosp", name)
            for shared in ("world_model", "virtual_obstacles", "units", "layers", "horizon", "imagination_starts",
                           "discount", "two_hot_critics", "actor_learning_rate", "critic_learning_rate"):
                assert getattr(mine, shared) == getattr(reference, shared), (name, shared)

    def test_same_seed_same_numbers_and_exact_checkpoints(self, method: str, tmp_path: Path) -> None:
        runs = [imagination_learner(method) for _ in range(2)]
        for step in range(2):
            first, second = (one.update(random_batch(one.specs, seed=step)) for one in runs)
            assert first == second
        runs[0].start_fine_tuning()
        runs[0].save(tmp_path)
        loaded = load_learner(tmp_path)
        assert isinstance(loaded, learner_class(method)) and loaded.online and loaded.step == 2
        runs[1].start_fine_tuning()
        assert loaded.update(random_batch(STATE_SPECS, seed=9)) == runs[1].update(random_batch(STATE_SPECS, seed=9))
        assert torch.equal(weights(loaded.model), weights(runs[1].model))

    def test_updates_that_fail_are_thrown_away_in_fine_tuning(self, method: str, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
        """What fine-tuning adds to the manifest must not hide what the learner itself wrote there."""
        store = EpisodeStore()
        for episode in demonstrations(3):
            store.add(episode)
        one = learner_class(method)(SPECS, imagination_learner(method).config)
        tuner = FineTuner(one, store, tmp_path, batch=2, length=4, seed=0)
        tuner.learn(1)
        good = weights(one.model)
        monkeypatch.setattr(tuner._check, "require", lambda policy: (_ for _ in ()).throw(FloatingPointError("bad")))
        assert tuner.learn(1)["rolled_back"] == 1
        assert torch.equal(weights(one.model), good) and one.online

    def test_a_loaded_policy_acts_as_the_learners_own(self, method: str, tmp_path: Path) -> None:
        one = imagination_learner(method)
        one.update(random_batch(one.specs))
        one.save(tmp_path)
        policies = [one.policy(), load_policy(tmp_path)]
        for policy in policies:
            policy.reset(3)
        for step in range(3):
            observation = {"vector": np.array([0.1 * step, 0.2], np.float32)}
            mine, other = (policy.act(observation, deterministic=step > 1) for policy in policies)
            np.testing.assert_array_equal(mine.action, other.action)
            assert dataclasses.replace(mine, action=None) == dataclasses.replace(other, action=None)
            for policy in policies:
                policy.observe_executed(np.array([0.5, -0.5], np.float32))

    def test_what_ran_and_a_reset_matter_to_the_state(self, method: str) -> None:
        one = imagination_learner(method)
        torch.nn.init.normal_(one.model.reward_critic.network.output.weight)
        policy, values = one.policy(), []
        for executed in (0.5, 0.5, -0.5):
            policy.reset(0)
            policy.act({"vector": np.zeros(2, np.float32)}, deterministic=True)
            policy.observe_executed(np.full(2, executed, np.float32))
            values.append(policy.act({"vector": np.ones(2, np.float32)}, deterministic=True).value)
        assert values[0] == values[1] != values[2]

    def test_another_configuration_is_refused(self, method: str, tmp_path: Path) -> None:
        imagination_learner(method).save(tmp_path)
        with pytest.raises(CheckpointError, match=r"config\.entropy"):
            imagination_learner(method, entropy=0.5).load(tmp_path)

    def test_learns_and_acts_with_the_view_around_the_tool(self, method: str) -> None:
        specs = dataclasses.replace(IMAGE_SPECS, scales={"max_translation_step": 0.015})
        view = ToolViewConfig(ABOVE.row, size=16)
        one = make_learner(method, specs, dataclasses.replace(imagination_learner(method).config, tool_view=view))
        batch = random_batch(specs)
        batch["pose"][..., :2] *= 0.1
        before = weights(one.model.tool_view)
        assert one.update(batch | {"scene": batch["image"]})["norm/tool_view"] > 0
        assert not torch.equal(before, weights(one.model.tool_view))
        policy = one.policy()
        policy.reset(0)
        decision = policy.act({name: batch[name][0, 0] for name in specs.observation})
        specs.action.validate(decision.action)


def test_registry_names_the_learners() -> None:
    assert learner_class("dreamer") is DreamerLearner
