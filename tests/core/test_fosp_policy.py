"""The FOSP policy, its checkpoints, and its view around the tool."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError, SpecError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods import registry
from safe_policy_core.methods.configuration import from_json, to_json
from safe_policy_core.methods.fosp import FospConfig, FospLearner
from safe_policy_core.methods.fosp.estimators import RealSteps
from safe_policy_core.vision import ToolViewConfig
from tests.core.fosp_rig import IMAGE_SPECS, STATE_SPECS, learner, random_batch, tiny_config, train, weights
from tests.core.test_vision import ABOVE

torch.set_num_threads(1)


class TestPolicy:
    def observation(self, seed: int = 0) -> dict[str, np.ndarray]:
        return {"vector": np.random.default_rng(seed).normal(size=2).astype(np.float32)}

    def run(self, policy: object, seed: int, deterministic: bool = False) -> list[np.ndarray]:
        policy.reset(seed)
        return [policy.act(self.observation(step), deterministic).action for step in range(4)]

    def test_seeds_fix_the_draws(self) -> None:
        policy = learner().policy()
        first = self.run(policy, 1)
        torch.rand(3)
        assert np.array_equal(first, self.run(policy, 1))
        assert not np.array_equal(first, self.run(policy, 2))
        assert np.array_equal(self.run(policy, 1, True), self.run(policy, 2, True))

    def test_decision_says_what_a_monitor_wants(self) -> None:
        one = learner()
        policy = one.policy()
        policy.reset(0)
        decision = policy.act(self.observation())
        assert one.specs.action.validate(decision.action).dtype == np.float32
        assert 0 <= decision.violation_probability <= 1
        assert np.isfinite([decision.value, decision.cost_value]).all()
        assert decision.chosen_policy == "offline"

    def test_latent_goes_on_with_the_executed_action(self) -> None:
        one = learner()
        torch.nn.init.normal_(one.model.actor.network.output.weight)
        policy = one.policy()
        actions = {}
        for name, executed in (("as asked", None), ("told so", "same"), ("other", np.array([1, -1], np.float32))):
            policy.reset(0)
            decision = policy.act(self.observation(), True)
            if executed is not None:
                policy.observe_executed(decision.action if isinstance(executed, str) else executed)
            actions[name] = policy.act(self.observation(1), True).action
        assert np.array_equal(actions["as asked"], actions["told so"])
        assert not np.array_equal(actions["as asked"], actions["other"])

    def test_reset_forgets(self) -> None:
        policy = learner().policy()
        policy.reset(0)
        first = policy.act(self.observation(), True).action
        policy.act(self.observation(1), True)
        policy.reset(0)
        assert np.array_equal(policy.act(self.observation(), True).action, first)

    def test_bad_input_is_named(self) -> None:
        policy = learner().policy()
        policy.reset(0)
        with pytest.raises(SpecError, match="observation/vector"):
            policy.act({"vector": np.full(2, np.nan, np.float32)})
        with pytest.raises(SpecError, match="action"):
            policy.observe_executed(np.zeros(3, np.float32))

    def test_two_policies_of_one_learner_have_memories_of_their_own(self) -> None:
        one = learner()
        left, right = one.policy(), one.policy()
        left.reset(0)
        right.reset(0)
        left.act(self.observation(3), True)
        second = left.act(self.observation(0), True).action
        assert not np.array_equal(second, right.act(self.observation(0), True).action)


class TestCheckpoints:
    @pytest.mark.parametrize("online", [False, True])
    def test_resume_is_exact(self, tmp_path: Path, online: bool) -> None:
        one = learner(IMAGE_SPECS)
        train(one, 2)
        if online:
            one.start_fine_tuning()
            train(one, 1, 2)
        one.save(tmp_path / "saved")
        train(one, 2, 5)
        other = learner(IMAGE_SPECS)
        other.load(tmp_path / "saved")
        assert (other.online, other.step) == (online, 3 if online else 2)
        train(other, 2, 5)
        assert torch.equal(weights(one.model), weights(other.model))
        assert torch.equal(one.model.lagrangian.multiplier, other.model.lagrangian.multiplier)

    def test_policies_act_the_same_after_a_round_trip(self, tmp_path: Path) -> None:
        one = learner()
        train(one, 2)
        one.start_fine_tuning()
        train(one, 2)
        one.save(tmp_path / "saved")
        one.export(tmp_path / "exact", half=False)
        one.export(tmp_path / "small")
        rows = TestPolicy()
        expected = rows.run(one.policy(), 5)
        assert np.array_equal(expected, rows.run(registry.load_policy(tmp_path / "saved"), 5))
        assert np.array_equal(expected, rows.run(registry.load_policy(tmp_path / "exact"), 5))
        assert np.allclose(expected, rows.run(registry.load_policy(tmp_path / "small"), 5), atol=0.02)
        assert np.array_equal(expected, rows.run(registry.load_learner(tmp_path / "saved").policy(), 5))

    def test_an_export_is_small_and_a_learner_starts_from_it(self, tmp_path: Path) -> None:
        one = learner()
        train(one, 2)
        one.save(tmp_path / "saved")
        one.export(tmp_path / "small")
        sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("saved", "small")]
        assert sizes[1] < sizes[0] / 4
        other = registry.load_learner(tmp_path / "small")
        assert isinstance(other, FospLearner)
        assert torch.allclose(weights(other.model.actor), weights(one.model.actor), atol=1e-2)
        assert torch.equal(weights(other.model.cost.critic.targets), weights(other.model.cost.critic.networks))
        train(other, 1)

    def test_other_specs_configurations_and_damaged_tensors_are_named(self, tmp_path: Path) -> None:
        one = learner()
        one.save(tmp_path / "saved")
        with pytest.raises(CheckpointError, match="observation"):
            learner(IMAGE_SPECS).load(tmp_path / "saved")
        with pytest.raises(CheckpointError, match=r"config\.horizon: expected 7, the checkpoint has 3"):
            learner(horizon=7).load(tmp_path / "saved")
        with pytest.raises(CheckpointError, match=r"config\.units: missing"):
            from_json(FospConfig, {name: value for name, value in to_json(one.config).items() if name != "units"})

    def test_config_round_trip(self) -> None:
        config = FospConfig.full()
        assert from_json(FospConfig, to_json(config)) == config

    def test_registry_names_unknown_methods(self) -> None:
        with pytest.raises(ConfigurationError, match="unknown name 'nope'"):
            registry.make_learner("nope", STATE_SPECS)
        assert isinstance(registry.make_learner("fosp", STATE_SPECS, tiny_config()), FospLearner)


def test_full_preset_is_the_papers_table() -> None:
    config = FospConfig.full()
    assert (config.units, config.layers, config.horizon, config.discount) == (512, 5, 15, 0.997)
    assert (config.reward_lambda, config.cost_lambda, config.expectile) == (0.95, 0.95, 0.8)
    assert (config.reward_temperature, config.cost_temperature, config.entropy) == (10, 10, 3e-4)
    assert (config.initial_multiplier, config.initial_penalty, config.penalty_growth) == (0.01, 1e-6, 5e-9)
    assert (config.actor_learning_rate, config.reachability_learning_rate) == (3e-5, 5e-5)
    assert config.reachability_discount == 0.99


def test_recorded_steps_mean_ignores_masked_ones() -> None:
    ones = torch.ones(2)
    real = RealSteps(ones, ones, ones, torch.tensor([1.0, 0.0]), ones, ones, ones.bool())
    assert real.mean(torch.tensor([3.0, 100.0])).item() == 3


class TestToolView:
    """A camera above the table, as in test_vision: the view joins the latent state everywhere."""

    specs = Specs(IMAGE_SPECS.observation, IMAGE_SPECS.action, {"max_translation_step": 0.02})

    def learner(self) -> FospLearner:
        return learner(self.specs, tool_view=ToolViewConfig(ABOVE.row, size=16))

    def batch(self) -> dict[str, np.ndarray]:
        batch = random_batch(self.specs)
        batch["pose"][..., :2] *= 0.1
        return batch | {"scene": np.repeat(batch["image"][:, :1], batch["image"].shape[1], 1)}

    def test_every_part_shapes_the_view(self) -> None:
        one = self.learner()
        before = {name: value.clone() for name, value in one.model.tool_view.state_dict().items()}
        metrics = one.update(self.batch())
        # The first step's critics are zero; their gradients reach the view from the second on.
        assert metrics["norm/tool_view"] > 0
        assert any(not torch.equal(value, before[name]) for name, value in one.model.tool_view.state_dict().items())

    def test_it_needs_the_first_picture(self) -> None:
        batch = self.batch()
        del batch["scene"]
        with pytest.raises(DatasetError, match="scene"):
            self.learner().update(batch)

    def test_save_load_and_export_keep_it(self, tmp_path: Path) -> None:
        one = self.learner()
        one.update(self.batch())
        one.save(tmp_path / "learner")
        one.export(tmp_path / "export", half=False)
        rng = np.random.default_rng(0)
        observation = {"image": rng.integers(0, 255, (16, 16, 3), np.uint8), "pose": np.full(6, 0.1, np.float32)}
        decisions = []
        for policy in (one.policy(), *(FospLearner.load_policy(tmp_path / name) for name in ("learner", "export"))):
            policy.reset(0)
            decisions.append(policy.act(observation, deterministic=True).action)
        assert np.array_equal(decisions[0], decisions[1]) and np.array_equal(decisions[0], decisions[2])

    def test_the_policy_remembers_the_first_picture(self) -> None:
        one, rng = self.learner(), np.random.default_rng(0)
        for _ in range(3):
            one.update(self.batch())
        frames = rng.integers(0, 255, (3, 16, 16, 3), np.uint8)
        pose = np.full(6, 0.1, np.float32)
        probabilities = []
        for first in (0, 1):
            policy = one.policy()
            policy.reset(0)
            policy.act({"image": frames[first], "pose": pose}, deterministic=True)
            # A fresh latent state, so that the view alone can tell.
            policy._state = None
            decision = policy.act({"image": frames[2], "pose": pose}, deterministic=True)
            probabilities.append(decision.violation_probability)
        assert probabilities[0] != probabilities[1]
