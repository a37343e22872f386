"""Acting by imagined courses: scores against hand-computed ones, and who is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.fosp.look_ahead import LookAheadConfig, imagined_scores, pushes
from safe_policy_core.world_model import LatentState
from tests.core.fosp_rig import learner

torch.set_num_threads(1)


@dataclass
class PlaneModel:
    """The state is a place in the plane, an action a step. Cost 1 where x is in [0.9, 1.1] and |y| below 0.3."""

    @property
    def rssm(self) -> PlaneModel:
        return self

    def imagine_step(self, state: LatentState, action: Tensor, noise: None) -> LatentState:
        return LatentState(state.deter + action, state.stochastic)

    def reward(self, features: Tensor) -> Tensor:
        return features[:, 0] / 10

    def cost(self, features: Tensor) -> Tensor:
        return (((features[:, 0] - 1).abs() < 0.1) & (features[:, 1].abs() < 0.3)).float()

    def continuation(self, features: Tensor) -> Tensor:
        return torch.full((len(features),), 0.8)


def forward(features: Tensor) -> SimpleNamespace:
    """An actor that always asks for half a step along x."""
    return SimpleNamespace(mode=torch.tensor([0.5, 0.0]).expand(len(features), 2))


def scores(pushed: list[list[float]], **changes: object) -> tuple[Tensor, Tensor]:
    config = LookAheadConfig(candidates=len(pushed), **{"horizon": 2} | changes)
    start = LatentState(torch.zeros(1, 2), torch.zeros(1, 0))
    return imagined_scores(PlaneModel(), lambda features: features[:, 0], forward, start, torch.tensor(pushed), None,
                           config, 0.9)


def test_scores_are_the_hand_computed_ones() -> None:
    actions, score = scores([[0.0, 0.0], [0.0, 0.0], [0.0, 0.4]], cost_weight=2.0)
    # To x = 0.5, then 1: reward 0.05 + 0.8 * (0.9 * 0.1 - 2 * 1), value 0.64 * 0.81 * 1.
    assert score[0].item() == pytest.approx(0.05 + 0.8 * (0.09 - 2.0) + 0.64 * 0.81, abs=1e-6)
    assert score[1].item() == pytest.approx(0.0, abs=1e-6), "rest"
    # The detour passes x = 1 at y = 0.8.
    assert score[2].item() == pytest.approx(0.05 + 0.8 * 0.09 + 0.64 * 0.81, abs=1e-6)
    assert torch.allclose(actions, torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.5, 0.4]]))


def test_actions_stay_in_their_range() -> None:
    actions, _ = scores([[0.0, 0.0], [0.0, 0.0], [3.0, -3.0]])
    assert actions[2].tolist() == [1.0, -1.0]


def test_pushes_leave_the_actors_course_and_rest_alone() -> None:
    config = LookAheadConfig(candidates=400, spread=0.5, directions=2)
    pushed = pushes(config, 6, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert not pushed[:2].any() and not pushed[:, 2:].any()
    assert pushed[2:, :2].std().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("changes", [{"candidates": 1}, {"candidates": -2}, {"candidates": 4, "horizon": 0}])
def test_bad_settings_are_named(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=r"look_ahead\.(candidates|horizon)"):
        LookAheadConfig(**changes)


def test_the_policy_takes_the_best_course_of_either_actor() -> None:
    one = learner(look_ahead=LookAheadConfig(candidates=8), new_actor="fresh")
    one.start_fine_tuning()
    model = one.model
    for actor in model.actors:
        torch.nn.init.normal_(actor.network.output.weight)
    torch.nn.init.normal_(model.reward.value.network.output.weight)
    chosen = set()
    for seed in range(12):
        state = LatentState(torch.randn(1, model.world_model.rssm.initial(1).deter.shape[1]),
                            model.world_model.rssm.initial(1).stochastic)
        with torch.no_grad():
            choice = model.look_ahead(state, None, torch.Generator().manual_seed(seed))
            pushed = pushes(model.config.look_ahead, 2, torch.Generator().manual_seed(seed), torch.device("cpu"))
            both = [imagined_scores(model.world_model, model.reward.value, actor, state, pushed, None,
                                    model.config.look_ahead, model.config.discount) for actor in model.actors]
        policy = int(choice.policy)
        assert torch.equal(choice.action[0], both[policy][0][both[policy][1].argmax()])
        assert both[policy][1].max() >= both[1 - policy][1].max()
        chosen.add(policy)
    assert chosen == {0, 1}


def test_equal_seeds_give_equal_actions() -> None:
    policy = learner(look_ahead=LookAheadConfig(candidates=8)).policy()
    observation = {"vector": np.ones(2, np.float32)}
    runs = []
    for _ in range(2):
        policy.reset(3)
        runs.append([policy.act(observation, True).action for _ in range(3)])
    assert np.array_equal(*runs)
