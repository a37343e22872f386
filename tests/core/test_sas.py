import itertools
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from safe_policy_core.commands import Evaluate, Pretrain
from safe_policy_core.data.dsrl import write_dsrl
from safe_policy_core.errors import CheckpointError, ConfigurationError
from safe_policy_core.interfaces import Aligns, TakesTargets
from safe_policy_core.methods.registry import load_learner, load_policy, make_learner
from safe_policy_core.methods.sas import alignment
from safe_policy_core.methods.sas.alignment import (
    Courses,
    condition_v,
    first_choice,
    imagined_courses,
    occupancy_energy,
    prompt_begin,
    second_choice,
    step_energy,
)
from safe_policy_core.methods.sas.alignment import align as align_by_prompt
from safe_policy_core.methods.sas.config import SasConfig, Selection
from safe_policy_core.methods.sas.imagination import Imagined, Noise, imagine
from safe_policy_core.methods.sas.steps import Steps
from safe_policy_core.methods.sequence.model import Windows, align
from safe_policy_core.training.offline import train_offline
from tests.core.corridor import SPECS, STEPS, Corridor, corridor_dataset
from tests.core.sas_bases import BASES, SMALL, START, learner_of, trained_bases


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bases(tmp_path_factory.mktemp("bases"))


def test_energy_of_a_known_gaussian(bases: Path) -> None:
    """With last layers of zero weight every head is a Gaussian that is known: E is its negative log density."""
    learner = learner_of(bases / "dt", energy_steps=1)
    model, heads = learner.model, learner.model.heads
    with torch.no_grad():
        for layer in (heads.vae.encoder[-1], heads.vae.decoder[-1], heads.action[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        heads.vae.decoder[-1].bias.copy_(torch.tensor([0.5, -1.0, 0.2, -0.4, 0, 0]))  # means, log deviations
        heads.action[-1].bias.copy_(torch.tensor([0.3, -0.7]))
    draw = torch.Generator().manual_seed(0)
    states, raw = torch.randn(2, 6, 2, generator=draw), torch.randn(2, 6, 1, generator=draw)
    found = Imagined(Steps(states, raw.tanh(), torch.zeros(2, 6, 2)), raw, torch.randn(2, 6, 16, generator=draw),
                     torch.zeros(2, 6, 2))
    normal = torch.randn(3, 2, 5, learner.config.latent, generator=draw)
    change = (states.diff(dim=1) - heads.change_mean) / heads.change_scale
    state = Normal(torch.tensor([0.5, -1.0]), torch.tensor([0.2, -0.4]).exp()).log_prob(change).sum(-1)
    action = TransformedDistribution(Normal(0.3, np.exp(-0.7)), TanhTransform()).log_prob(raw.tanh())[:, 1:, 0]
    energy = step_energy(model, found, normal, learner.config)
    torch.testing.assert_close(energy, -(state + action), atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        heads.vae.encoder[-1].bias[:learner.config.latent] = 2.0  # KL(N(2, 1) || N(0, 1)) = 2 for each latent
    farther = step_energy(model, found, normal, learner.config)
    torch.testing.assert_close(farther, -(state + action) + 2.0 * learner.config.latent, atol=1e-3, rtol=1e-4)


def test_occupancy_sums_discounted_densities_over_the_next_steps() -> None:
    density = torch.tensor([[0.5, 2.0, 0.1, 4.0]])
    energy = occupancy_energy(density.log(), 3, 0.9)
    expected = [0.5 + 0.9 * 2.0 + 0.81 * 0.1, 2.0 + 0.9 * 0.1 + 0.81 * 4.0]
    torch.testing.assert_close(energy, -torch.tensor([expected]).log())


def test_algorithm_1_on_a_hand_made_set() -> None:
    """The lowest peak, then most steps that meet V; the prompt ends at the peak, and is whole wherever that is."""
    energy = torch.tensor([[1.0, 9.0, 1.0, 1.5], [4.0, 2.0, 5.0, 6.0], [8.0, 7.5, 7.0, 2.0]])
    steps = Steps(torch.zeros(3, 7, 2), torch.zeros(3, 7, 1), torch.zeros(3, 7, 2))
    courses, draw = Courses(steps, energy, torch.tensor([3.0, 2.0, 1.0])), torch.Generator().manual_seed(0)
    configs = {name: SasConfig(selection=name) for name in get_args(Selection)}
    assert first_choice(courses, configs["sas"], draw) == first_choice(courses, configs["no_v"], draw) == (1, 3)
    assert first_choice(courses, configs["maxmax"], draw) == (0, 1)
    assert first_choice(courses, configs["cost"], draw) == (2, 0)
    drawn = {first_choice(courses, configs["random"], draw) for _ in range(300)}
    assert drawn == set(itertools.product(range(3), range(4)))
    assert second_choice(courses, configs["sas"]) == (2, 0)  # falls all the time
    assert second_choice(courses, SasConfig(lyapunov="rising")) == (0, 1)  # rises twice, as course 1 does: the first
    assert second_choice(courses, configs["cost"]) == (2, 0)
    assert condition_v(energy, "falling")[0].tolist() == [False, True, False]
    assert condition_v(energy, "rising")[0].tolist() == [True, False, True]
    assert [prompt_begin(peak, 3, 7) for peak in (0, 2, 3, 5, 7)] == [0, 0, 0, 2, 4]


def step_by_step(model: Any, state: Tensor, to_go: Tensor, action_noise: Tensor, latent: Tensor, prompt: Steps | None,
                 told: bool) -> tuple[Tensor, Tensor, Tensor]:
    """One course, every step with a whole pass over its context: the prompt and the newest quarter once full."""
    base, length = model.base, model.base.config.length
    first = 0 if prompt is None else prompt.actions.shape[1]
    states = [] if prompt is None else list(prompt.states[0])
    actions = [] if prompt is None else list(prompt.actions[0])
    sums = [] if prompt is None else list(prompt.to_go[0])
    states.append(state)
    sums.append(to_go)
    hidden = prompt is not None and base.config.prompt_steps and not told
    if hidden:
        sums = [torch.stack([base.actor.to_go.mean[0], value[1]]) for value in sums]
    context = list(range(first))
    for turn in range(len(action_noise)):
        step = first + turn
        context.append(step)
        if len(context) > length:
            context = context[:first] + context[-((length - first) // 4):]
        stacked = [torch.stack([values[index] for index in context])[None] for values in (states, sums)]
        past = torch.stack([*[actions[index] for index in context[:-1]], torch.zeros(base.action_dim)])[None]
        returns, costs = stacked[1].unbind(-1)
        times = torch.tensor([context])
        feature = base.actor.last_features(Windows(stacked[0], past, returns, costs, returns, costs, times, times >= 0,
                                                   times[:, 0] < 0))[0]
        actions.append(model.actions(feature).raw_sample(action_noise[turn]).tanh())
        following, received = model.heads.predict(feature, states[-1], actions[-1], latent[turn])
        states.append(following.clamp(-10, 10))
        left = sums[-1] - received
        sums.append(torch.stack([sums[-1][0] if hidden else left[0], left[1].clamp(min=0)]))
    return torch.stack(states[first:-1]), torch.stack(actions[first:]), torch.stack(sums[first:-1])


@pytest.mark.parametrize(("method", "prompted", "told"), [
    ("dt", False, True), ("dt", True, True), ("dt", True, False), ("cdt", True, True), ("dt_told", False, False),
    ("dt_told", True, False), ("dt_told", True, True)])
def test_imagination_equals_a_step_by_step_rollout(bases: Path, method: str, prompted: bool, told: bool) -> None:
    model = learner_of(bases / method).model
    draw = torch.Generator().manual_seed(1)
    noise = Noise.draw(model, 3, 25, draw)  # three times the context
    state, to_go = torch.randn(2, generator=draw), torch.tensor([8.0, 0.3])
    prompt = Steps(*(torch.randn(1, 3, size, generator=draw) for size in (2, 1, 2))) if prompted else None
    found = imagine(model, state, to_go, noise, prompt, told)
    with torch.inference_mode():
        for course in range(3):
            expected = step_by_step(model, state, to_go, noise.action[course], noise.latent[course], prompt, told)
            for mine, theirs in zip(found.steps, expected, strict=True):
                torch.testing.assert_close(mine[course], theirs, atol=1e-4, rtol=1e-4)
    assert not torch.equal(found.steps.actions[0], found.steps.actions[1])


@pytest.mark.parametrize("method", list(BASES))
def test_alignment_leaves_every_weight_unchanged(bases: Path, method: str) -> None:
    plain = load_learner(bases / method)
    before = {name: value.clone() for name, value in plain.model.state_dict().items()}  # type: ignore[attr-defined]
    learner = learner_of(bases / method, steps=5)
    heads = {name: value.clone() for name, value in learner.model.heads.state_dict().items()}
    policy = learner.policy()
    policy.reset(0)
    policy.align(START)
    for _ in range(3):
        policy.act(START)
    after = learner.model.base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, learner.model.heads.state_dict()[name]) for name, value in heads.items())
    fresh = make_learner("sas", SPECS, learner.config).model.heads.state_dict()  # type: ignore[attr-defined]
    assert not torch.equal(heads["vae.decoder.0.weight"], fresh["vae.decoder.0.weight"])  # the heads did learn


@pytest.mark.parametrize("keep", [True, False])
def test_prompt_tokens_get_the_right_timesteps_and_masks(bases: Path, keep: bool) -> None:
    policy = learner_of(bases / "cdt", keep_prompt=keep).policy()
    policy.reset(3)
    policy.align(START)
    prompt, seen = policy.alignment.prompt, []
    for step in range(12):
        policy.act({"vector": np.array([0.1, step], np.float32)})
        policy.observe_outcome(0.5, 0.0)
        window = policy.base._history()
        assert window.mask.all() and window.observations.shape[1] <= SMALL["length"]
        seen.append(window.time_steps[0].tolist())
        if seen[-1][0] == 0:
            torch.testing.assert_close(window.observations[:, :3], prompt.states, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(window.actions[:, :3], prompt.actions)
            torch.testing.assert_close(window.returns_to_go[:, :3], prompt.to_go[..., 0])
            torch.testing.assert_close(window.costs_to_go[:, :3], prompt.to_go[..., 1])
    assert seen[0] == [0, 1, 2, 3] and seen[4] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert seen[5] == ([0, 1, 2, 4, 5, 6, 7, 8] if keep else [1, 2, 3, 4, 5, 6, 7, 8])
    assert seen[11] == ([0, 1, 2, 10, 11, 12, 13, 14] if keep else [7, 8, 9, 10, 11, 12, 13, 14])
    policy.reset(3)
    assert policy.base._observations == [] and policy.alignment is None


def test_the_prompt_is_seen_by_the_action(bases: Path) -> None:
    policy = learner_of(bases / "dt").policy()
    actions = []
    for shift in (0.0, 1.0):
        policy.reset(0)
        policy.base.prompt(np.full((3, 2), shift), np.zeros((3, 1)), np.full((3, 2), 5.0), True)
        actions.append(policy.base.act(START, deterministic=True).action)
    assert abs(actions[0] - actions[1]) > 1e-5


@pytest.mark.parametrize("told", [False, True])
def test_a_base_that_learned_from_prompts_need_not_be_told_the_return(bases: Path, told: bool) -> None:
    """What is asked for acts before the prompt is there, on the courses imagined, and beside it only if told."""
    learner = learner_of(bases / "dt_told")
    policy, actions = learner.policy(), {}
    unknown = float(learner.model.base.actor.to_go.mean[0])
    for prompted in (False, True):
        for wanted in (1.0, 9.0):
            policy.set_target_cost(0.0, wanted)
            policy.reset(0)
            if prompted:
                policy.base.prompt(np.zeros((3, 2)), np.zeros((3, 1)), np.full((3, 2), wanted), True, told)
            actions[prompted, wanted] = float(policy.base.act(START, deterministic=True).action[0])
            assert (policy.base._history().returns_to_go == unknown).all() == (prompted and not told)
    assert (actions[True, 1.0] == actions[True, 9.0]) == (not told)
    assert actions[False, 1.0] != actions[False, 9.0]


def test_heads_do_not_learn_what_follows_a_prompt(bases: Path) -> None:
    """From its last step to the episode's, nothing follows: another state there changes no loss of the heads."""
    learner = learner_of(bases / "dt_told")
    batch = learner.data_source(corridor_dataset(12)).sample(16, 1, np.random.default_rng(0))
    windows = learner.model.base.scaled(align({name: torch.as_tensor(batch[name]) for name in Windows._fields}))
    only = windows._replace(mask=windows.mask & (torch.arange(8) < 4))  # three steps of a prompt, and one behind it
    with torch.no_grad():
        whole = learner.losses(only)["next_state"]
        torch.manual_seed(0)
        first = learner.losses(only)["next_state"]
        torch.manual_seed(0)
        features = learner.model.features(only)
        learner.model.features = lambda _: features
        moved = only._replace(observations=only.observations.clone())
        moved.observations[:, 3] += 100.0
        assert torch.equal(learner.losses(moved)["next_state"], first)
    assert whole.isfinite()


def test_first_courses_may_ask_for_less_and_less(bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down by a share of the largest return in the data (10 for the networks); those under a prompt are not spread."""
    learner, asked = learner_of(bases / "dt", trajectories=3, return_spread=0.2), []

    def spy(model: Any, config: Any, state: Tensor, to_go: Tensor, *others: Any) -> Courses:
        asked.append(to_go.clone())
        return imagined_courses(model, config, state, to_go, *others)

    monkeypatch.setattr(alignment, "imagined_courses", spy)
    align_by_prompt(learner.model, learner.config, torch.zeros(2), torch.tensor([9.0, 0.5]),
                    torch.Generator().manual_seed(0))
    torch.testing.assert_close(asked[0], torch.tensor([[9.0, 0.5], [8.0, 0.5], [7.0, 0.5]]))
    assert asked[1].tolist() == [9.0, 0.5]


def test_several_prompts_are_joined_and_must_fit(bases: Path) -> None:
    policy = learner_of(bases / "dt", prompts=2).policy()
    policy.reset(0)
    assert policy.align(START)["prompt_steps"] == 6
    with pytest.raises(ConfigurationError, match="prompt_steps: 3 prompts of 3 do not fit"):
        learner_of(bases / "dt", prompts=3)
    with pytest.raises(ConfigurationError, match="prompt: 8 steps"):
        policy.base.prompt(*np.zeros((3, 8, 1)), True)


@pytest.mark.parametrize("selection", ["sas", "random"])
def test_a_seed_fixes_the_alignment_and_the_episode(bases: Path, selection: str) -> None:
    policy, runs = learner_of(bases / "qpt", selection=selection).policy(), []
    assert isinstance(policy, Aligns) and isinstance(policy, TakesTargets)
    for seed in (4, 4, 5):
        policy.reset(seed)
        told = policy.align(START)
        actions = [policy.act({"vector": np.full(2, 0.1 * step, np.float32)}).action for step in range(4)]
        runs.append((told, np.array(actions)))
    assert runs[0][0] == runs[1][0] and np.array_equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0] and not np.array_equal(runs[0][1], runs[2][1])
    policy.reset(4)
    policy.act({"vector": START["vector"]})  # aligns by itself where nobody did
    assert policy.alignment.to_json() == runs[0][0]


def test_heads_learn_what_follows(bases: Path) -> None:
    """In the corridor an action of 1 moves by 0.1 and the reward is the position; imagined steps do the same."""
    learner = make_learner("sas", SPECS, SasConfig(base=str(bases / "cdt"), units=32, learning_rate=5e-3))
    train_offline(learner, corridor_dataset(40), 300, 16, 1, progress=False)
    model = learner.model  # type: ignore[attr-defined]
    found = imagine(model, model.base.states(torch.tensor([0.0, 0.0])), torch.tensor([5.0, 5.0]),
                    Noise.draw(model, 20, 15, torch.Generator().manual_seed(0)))
    position, time = model.base.standardiser.inverse(found.steps.states).unbind(-1)
    moved = position[:, :-1] + 0.1 * found.steps.actions[:, :-1, 0]
    assert (position[:, 1:] - moved).abs().mean() < 0.05
    assert (time.diff(dim=1) - 1 / STEPS).abs().mean() < 0.01
    reward = -found.steps.to_go[..., 0].diff(dim=1) / model.base.return_unit
    assert (reward - position[:, 1:]).abs().mean() < 0.1


def test_a_checkpoint_holds_its_base_and_resumes_exactly(bases: Path, tmp_path: Path) -> None:
    shutil.copytree(bases / "cdt", tmp_path / "base")
    config, data = SasConfig(base=str(tmp_path / "base"), units=16, prompt_steps=3), corridor_dataset(12)
    whole = make_learner("sas", SPECS, config)
    train_offline(whole, data, 6, 8, 1, progress=False)
    for steps in (3, 6):
        parts = make_learner("sas", SPECS, config)
        train_offline(parts, data, steps, 8, 1, 0, tmp_path / "run", resume=True, progress=False)
    for name, value in whole.model.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(value, parts.model.state_dict()[name])  # type: ignore[attr-defined]
    shutil.rmtree(tmp_path / "base")
    acted = []
    for policy in (load_policy(tmp_path / "run"), whole.policy()):
        policy.reset(0)
        acted.append(policy.act(START).action)
    np.testing.assert_array_equal(*acted)
    shutil.copytree(bases / "dt", tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"run: base: was"):
        load_learner(tmp_path / "run")


def test_wrong_bases_are_named(bases: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="base: name the checkpoint"):
        make_learner("sas", SPECS)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        make_learner("sas", SPECS, SasConfig(base=str(tmp_path / "nothing")))
    train_offline(make_learner("cpq", SPECS), corridor_dataset(4), 1, 4, 1, 0, tmp_path / "cpq", progress=False)
    with pytest.raises(ConfigurationError, match=r"dt, cdt or qpt, .* is of 'cpq'"):
        make_learner("sas", SPECS, SasConfig(base=str(tmp_path / "cpq")))


def test_command_line(bases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dsrl(tmp_path / "corridor.hdf5", corridor_dataset(6))
    monkeypatch.setattr("safe_policy_core.commands.open_env", lambda task, specs: Corridor())
    settings = (f"base={bases / 'cdt'}", "units=16", "prompt_steps=3")
    trained = Pretrain("sas", (tmp_path / "corridor.hdf5",), tmp_path / "sas", steps=2, batch=8, set=settings).run()
    assert trained["episodes"] == 6
    assert Evaluate(tmp_path / "sas", episodes=1, target_cost=2.0).run()["target_cost"] == 2.0
