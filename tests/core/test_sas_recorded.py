"""SAS by recorded prompts: which steps are kept, which are shown, and when."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.methods.registry import load_policy
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.recorded import good_episodes
from tests.core.corridor import STEPS, corridor_dataset
from tests.core.sas_bases import SMALL, START, learner_of, trained_bases


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bases(tmp_path_factory.mktemp("bases"))


RECORDED: dict[str, Any] = {"recorded": 3 * STEPS, "recorded_cost": 0.5, "recorded_quantile": 0.5}


def test_recorded_prompts_are_of_good_episodes_and_nearest(bases: Path) -> None:
    """Of episodes that cost at most half of the target and return no less than half of those do; as recorded."""
    learner, data = learner_of(bases / "cdt", **RECORDED), corridor_dataset(12)
    target = learner.model.base.config.target_cost
    cheap = np.flatnonzero(data.cost_returns <= 0.5 * target)
    good = cheap[data.returns[cheap] >= np.quantile(data.returns[cheap], 0.5)]
    assert len(good) < len(cheap)
    np.testing.assert_array_equal(good_episodes(data, target, learner.config), good)
    kept, base = learner.model.recorded, learner.model.base
    assert 1 <= int(kept.begins.sum()) <= 3 * (STEPS - 2)
    query = base.states(torch.tensor([0.4, 0.5]))
    found = kept.nearest(query)
    distances = {}
    for begin in kept.begins.nonzero()[:, 0].tolist():
        rows = base.standardiser.inverse(kept.states[begin:begin + 3]).numpy()
        # The three rows are in one good episode, one after the other.
        places = [row for row in np.flatnonzero(np.abs(data.observations - rows[0]).max(1) < 1e-4)
                  if np.allclose(data.observations[row:row + 3], rows, atol=1e-4)
                  and np.allclose(data.actions[row:row + 3], kept.actions[begin:begin + 3], atol=1e-6)]
        episodes = {int(np.searchsorted(data.starts, row, side="right") - 1) for row in places}
        assert episodes & set(good.tolist())
        distances[begin] = float((kept.states[begin + 1] - query).square().mean().sqrt())
    assert found.step == min(distances, key=lambda begin: distances[begin])
    assert found.distance == pytest.approx(distances[found.step])
    assert torch.equal(found.prompt.states[0], kept.states[found.step:found.step + 3])
    drawn = {kept.drawn(query, torch.Generator().manual_seed(seed)).step for seed in range(40)}
    assert drawn <= distances.keys() and len(drawn) > 3
    begun = kept.first[kept.begins].unique()
    nearest = min(begun.tolist(), key=lambda row: float((kept.states[row] - query).square().sum()))
    shown = {kept.begun_nearest(query, torch.Generator().manual_seed(seed)).step for seed in range(200)}
    assert shown == set(range(nearest, nearest + STEPS - 2)) & distances.keys() and len(begun) == len(distances) // 18
    with pytest.raises(DatasetError, match=r"recorded: no episode of at most 0\.5 .* between 3 and 10 steps"):
        learner.model.record(data, SasConfig(prompt_steps=3, recorded=10, recorded_cost=0.5))


def test_what_is_loaded_takes_the_place_of_what_was_kept(bases: Path) -> None:
    learner, other = (learner_of(bases / "cdt", **RECORDED | {"recorded_quantile": share}) for share in (0.0, 0.5))
    query = learner.model.base.states(torch.tensor([0.4, 0.5]))
    before, expected = (some.model.recorded.nearest(query) for some in (learner, other))
    assert before.step != expected.step
    learner.model.recorded.load_state_dict(other.model.recorded.state_dict())
    assert learner.model.recorded.nearest(query).step == expected.step


def test_recorded_to_go_is_what_the_networks_take(bases: Path) -> None:
    learner, data = learner_of(bases / "cdt", recorded=12 * STEPS, recorded_cost=np.inf, recorded_quantile=0), \
        corridor_dataset(12)
    kept, base = learner.model.recorded, learner.model.base
    first = np.flatnonzero(kept.begins.numpy() & ~np.roll(kept.begins.numpy(), 1))  # of each episode
    assert len(first) == 12
    sums = kept.to_go[first].numpy() / [float(base.return_unit), float(base.cost_unit)]
    np.testing.assert_allclose(np.sort(sums[:, 0]), np.sort(data.returns), rtol=1e-4)
    np.testing.assert_allclose(np.sort(sums[:, 1]), np.sort(data.cost_returns), rtol=1e-4, atol=1e-5)


def test_the_prompt_is_chosen_anew_while_the_episode_goes_on(bases: Path, tmp_path: Path) -> None:
    """After every 4 steps, from where the robot is; the episode's own steps stay behind it. So from a checkpoint."""
    learner = learner_of(bases / "cdt", realign=4, **RECORDED)
    learner.save(tmp_path / "sas")
    told, policies = [], [learner.policy(), load_policy(tmp_path / "sas")]
    policy: Any
    for policy in policies:
        policy.reset(0)
        for step in range(9):
            observation = np.array([0.1 * step, step / STEPS], np.float32)
            policy.act({"vector": observation}, deterministic=True)
            window = policy.base._history()
            told.append(policy.alignment.to_json())
            expected = learner.model.recorded.nearest(learner.model.base.states(torch.from_numpy(observation)))
            if step % 4 == 0:
                assert told[-1] == expected.to_json()
            own = min(step + 1, SMALL["length"] - 3)
            assert window.time_steps[0].tolist() == [0, 1, 2, *range(4 + step - own, 4 + step)]
            torch.testing.assert_close(window.observations[0, :3], policy.alignment.prompt.states[0],
                                       atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(window.observations[0, -1],
                                       learner.model.base.states(torch.from_numpy(observation)))
    assert told[:9] == told[9:] and len({value["recorded_step"] for value in told}) > 1


def test_prompts_of_another_length_than_the_base_learned_from_are_said(
        bases: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner = learner_of(bases / "dt_told")
    learner.policy()
    learner_of(bases / "dt").policy()
    assert not caplog.records
    learner.policy(SasConfig(prompt_steps=2))
    assert "learned from prompts of 3 steps and is shown 2" in caplog.text


def test_alignment_in_the_middle_needs_recorded_prompts_that_stay(bases: Path) -> None:
    for changes in ({"realign": 4}, {"realign": -1, **RECORDED}, {"realign": 4, "keep_prompt": False, **RECORDED}):
        with pytest.raises(ConfigurationError, match="realign"):
            learner_of(bases / "dt", **changes).policy()
    for learner, config in ((learner_of(bases / "dt"), SasConfig(prompt_steps=3, recorded=9)),
                            (learner_of(bases / "dt", **RECORDED), SasConfig(prompt_steps=3)),
                            (learner_of(bases / "dt", **RECORDED), SasConfig(prompts=2, **RECORDED))):
        with pytest.raises(ConfigurationError, match="recorded: expected as in training"):
            learner.policy(config)
    policy = learner_of(bases / "dt", keep_prompt=False, **RECORDED).policy()
    policy.reset(0)
    policy.act(START)
    with pytest.raises(ConfigurationError, match="prompt: 0 steps of one are kept"):
        policy.align(START)
