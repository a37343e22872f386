"""Recovery RL: the risk's target and fixed point, and the change of policy at the threshold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.dreamer.planner import Courses, PlannerConfig
from safe_policy_core.methods.recovery_rl import RecoveryRlConfig
from safe_policy_core.methods.recovery_rl.learner import risk_target
from safe_policy_core.world_model import ImaginedSteps, RealSteps
from tests.core.imagination_rig import experience, imagination_learner

torch.set_num_threads(1)


class TestRisk:
    def test_target_by_hand(self) -> None:
        target = risk_target(torch.tensor([0.0, 1.0, 0.0, 0.25]), torch.tensor([1.0, 1.0, 0.0, 0.5]), torch.tensor(0.5),
                             0.9)
        assert target.tolist() == pytest.approx([0.45, 1.0, 0.0, 0.25 + 0.75 * 0.9 * 0.5 * 0.5])

    def test_fixed_point_on_a_chain(self) -> None:
        # States 0 -> 1 -> 2 -> a cost; 4 -> 5 ends well. In imagination 6 -> 0 and 7 -> a cost in one of two cases.
        one = imagination_learner("recovery_rl", risk_discount=0.8, risk_learning_rate=0.02, slow_rate=0.2)
        eye = torch.eye(one.model.feature_size)
        real = RealSteps(eye[[0, 1, 2, 4]], eye[[1, 2, 3, 5]], torch.zeros(4, 2), torch.ones(4), torch.zeros(4),
                         torch.tensor([0.0, 0, 3, 0]), torch.tensor([False, False, False, True]))
        imagined = ImaginedSteps(torch.stack([eye[[6, 7]], eye[[0, 5]]]), torch.zeros(1, 2, 2), torch.zeros(1, 2),
                                 torch.tensor([[0.0, 0.5]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
        for _ in range(300):
            # Every action does the same, and is asked for.
            action = 2 * torch.rand(6, 2, generator=one.generator) - 1
            loss, _ = one.risk_loss(dataclasses.replace(real, action=action[:4]),
                                    dataclasses.replace(imagined, action=action[4:].unsqueeze(0)))
            one.optimisers["risk"].step(loss)
            one.model.risk_critic.update_targets()
        risk = one.model.risk(eye[[0, 1, 2, 4, 6, 7]], torch.zeros(6, 2)).detach()
        assert risk.tolist() == pytest.approx([0.64, 0.8, 1.0, 0.0, 0.512, 0.5], abs=0.1)

    def test_masked_steps_teach_nothing_and_the_task_policys_actions_are_asked(self) -> None:
        one = imagination_learner("recovery_rl")
        steps = experience(one)
        for network in one.model.risk_critic.targets:
            torch.nn.init.normal_(network.output.weight)
        masked = steps.real.mask == 0
        assert masked.any()
        state = one.generator.get_state()
        before = one.risk_loss(steps.real, steps.imagined)[0]
        steps.real.cost[masked] += 1
        one.generator.set_state(state)
        assert torch.equal(before, one.risk_loss(steps.real, steps.imagined)[0])
        one.generator.set_state(state)
        with torch.no_grad():
            one.model.actor.network.output.bias += 2
        assert not torch.equal(before, one.risk_loss(steps.real, steps.imagined)[0])


class TestPolicy:
    def test_recovery_acts_above_the_threshold_alone(self) -> None:
        one = imagination_learner("recovery_rl", risk_threshold=0.3)
        policy = one.policy()
        for risk, chosen in ((0.2, "task"), (0.4, "recovery"), (1.7, "recovery"), (-0.5, "task")):
            for network in one.model.risk_critic.networks:
                network.output.bias.data.fill_(risk)
            policy.reset(0)
            decision = policy.act({"vector": np.zeros(2, np.float32)}, deterministic=True)
            assert decision.chosen_policy == chosen
            assert decision.violation_probability == pytest.approx(min(max(risk, 0), 1))

    def test_recovery_lowers_the_risk(self) -> None:
        """The rating is made to say |a_x - 0.8| of the first action: recovery goes there."""
        one = imagination_learner("recovery_rl", planner=PlannerConfig(candidates=64, best=8, horizon=2, iterations=4))
        for network in one.model.risk_critic.networks:
            network.output.bias.data.fill_(0.9)
        one.model.rate = lambda courses: (-(courses.actions[0, :, 0] - 0.8).abs(), 0 * courses.actions[0, :, 0])
        policy = one.policy()
        policy.reset(0)
        decision = policy.act({"vector": np.zeros(2, np.float32)}, deterministic=True)
        assert decision.chosen_policy == "recovery"
        assert decision.action[0] == pytest.approx(0.8, abs=0.1)

    def test_rating_by_hand(self) -> None:
        one = imagination_learner("recovery_rl")
        for network in one.model.risk_critic.networks:
            network.output.bias.data.fill_(0.5)
        one.model.world_model.cost = lambda features: torch.tensor([[0.2], [3.0]])
        weight = torch.tensor([[1.0], [0.6], [0.1]])
        courses = Courses(torch.zeros(3, 1, one.model.feature_size), torch.zeros(2, 1, 2), weight)
        returns, costs = one.model.rate(courses)
        assert returns.item() == pytest.approx(-(0.2 + 0.6 * 1 + 0.1 * 0.5))
        assert costs.item() == 0

    def test_a_recovery_policy_is_needed(self) -> None:
        with pytest.raises(ConfigurationError, match="recovery policy"):
            RecoveryRlConfig(planner=PlannerConfig(candidates=0))
