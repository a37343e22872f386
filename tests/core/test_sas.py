import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution, kl_divergence

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
    imagined_steps,
    occupancy_energy,
    prompt_begin,
    second_choice,
    state_density,
    step_energy,
)
from safe_policy_core.methods.sas.alignment import align as align_by_prompt
from safe_policy_core.methods.sas.config import SasConfig, Selection
from safe_policy_core.methods.sas.imagination import Imagined, Noise, imagine
from safe_policy_core.methods.sas.landscape import Landscape, landscape
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


def test_evidence_is_a_mean_over_draws(bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E_q log p(x | z) - KL(q || N(0, 1)), the first from as many draws as are asked for, in parts or at once."""
    learner = learner_of(bases / "dt", evidence_draws=7)
    model, vae, draw = learner.model, learner.model.heads.vae, torch.Generator().manual_seed(0)
    context, change = torch.randn(4, 19, generator=draw), torch.randn(4, 2, generator=draw)
    normal = torch.randn(7, 4, learner.config.latent, generator=draw)
    with torch.no_grad():
        mean, log_deviation = vae.encoder(torch.cat([context, change], -1)).chunk(2, -1)
        posterior, terms = Normal(mean, log_deviation.exp()), []
        for noise in normal:
            decoded = vae.decode(context, mean + log_deviation.exp() * noise)
            terms.append(Normal(decoded.mean, decoded.log_deviation.exp()).log_prob(change).sum(-1))
        expected = torch.stack(terms).mean(0) - kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1)
        torch.testing.assert_close(vae.evidence(context, change, normal)[0], expected, atol=1e-4, rtol=1e-4)
    seen = []

    def spy(model: Any, found: Imagined, normal: Tensor) -> Tensor:
        seen.append((found, normal))
        return state_density(model, found, normal)

    monkeypatch.setattr(alignment, "state_density", spy)
    imagined_courses(model, learner.config, torch.zeros(2), torch.tensor([9.0, 0.5]), draw, 5, None)
    assert seen[0][1].shape == (7, 5, imagined_steps(model, learner.config) - 1, learner.config.latent)
    whole = state_density(model, *seen[0])
    monkeypatch.setattr(alignment, "EVIDENCE_ROWS", 1)
    torch.testing.assert_close(state_density(model, *seen[0]), whole)


def test_a_map_is_of_g_and_of_the_states_density(bases: Path) -> None:
    """Heads as of a known Gaussian: the density has no actions in it, energy and level have them alike."""
    assert Landscape(np.zeros(2), np.array([1.0, 5.0]), 3.0).lyapunov.tolist() == [2.0, -2.0]
    learner = learner_of(bases / "dt", energy_steps=1)
    heads = learner.model.heads
    with torch.no_grad():
        for layer in (heads.vae.encoder[-1], heads.vae.decoder[-1], heads.action[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        heads.vae.decoder[-1].bias.copy_(torch.tensor([0.0, 0.0, 0.2, -0.4, 0, 0]))  # imagined changes are the means
        heads.action[-1].bias.copy_(torch.tensor([0.3, -0.7]))
    policy = learner.policy()
    policy.reset(0)
    found = landscape(policy, START["vector"], np.random.default_rng(0).normal(0.5, 0.1, (60, 2)))
    np.testing.assert_allclose(found.density, -0.2 + 0.4 - np.log(2 * np.pi), atol=1e-3)
    action = TransformedDistribution(Normal(0.3, np.exp(-0.7)), TanhTransform())
    entropy = -action.log_prob(action.sample((5000,))).mean()
    assert (found.energy + found.density).mean() == pytest.approx(float(entropy), abs=0.1)
    assert found.energy.min() < found.peak < found.energy.max() + 0.5


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


def hand_made_courses(peaks: list[int], cost: list[float]) -> Courses:
    """12 steps, numbered in their actions, and 9 energies that fall towards 0 on both sides of a peak."""
    energy = torch.stack([-(torch.arange(9) - peak).abs().float() for peak in peaks])
    actions = torch.arange(12.0).repeat(len(peaks), 1) + 100 * torch.arange(len(peaks)).unsqueeze(1)
    return Courses(Steps(torch.zeros(len(peaks), 12, 2), actions.unsqueeze(-1), torch.zeros(len(peaks), 12, 2)), energy,
                   torch.tensor(cost))


def test_algorithm_1_imagines_again_after_the_first_prompt(bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line 7's prompt is what comes before the peak of the first choice, and line 15's before that of the second."""
    learner, asked = learner_of(bases / "dt", trajectories=3, candidates=2), []
    first, second = hand_made_courses([2, 5, 6], [3.0, 2.0, 1.0]), hand_made_courses([4, 7], [0.5, 0.25])
    first.energy[[0, 2]] += 1  # course 1 has the lowest peak; of conditions V course 0 would meet most

    def imagined(model: Any, config: Any, state: Tensor, to_go: Tensor, generator: Any, courses: int, prompt: Any
                 ) -> Courses:
        asked.append((courses, prompt))
        return second if prompt is not None else first

    monkeypatch.setattr(alignment, "imagined_courses", imagined)
    found = align_by_prompt(learner.model, learner.config, torch.zeros(2), torch.ones(2), torch.Generator())
    assert [courses for courses, _ in asked] == [3, 2] and asked[0][1] is None
    assert asked[1][1].actions[0, :, 0].tolist() == [103, 104, 105]  # energy 5 is that of step 6
    assert found.prompt.actions[0, :, 0].tolist() == [2, 3, 4]
    assert found.to_json() == {"prompt_steps": 3, "course": 0, "step": 5, "peak_energy": 0.0, "stable_share": 0.5,
                               "imagined_cost": 0.5}


def test_courses_are_imagined_after_the_prompt_and_cost_what_is_expected(
        bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, seen = learner_of(bases / "cdt", keep_prompt=False, told=False), []

    def spy(*asked: Any) -> Imagined:
        found = imagine(*asked)
        seen.append((asked, found._replace(received=torch.randn(found.received.shape))))
        return seen[-1][1]

    monkeypatch.setattr(alignment, "imagine", spy)
    prompt = Steps(torch.ones(1, 3, 2), torch.ones(1, 3, 1), torch.ones(1, 3, 2))
    courses = imagined_courses(learner.model, learner.config, torch.zeros(2), torch.ones(2), torch.Generator(), 4,
                               prompt)
    (asked, found), = seen
    assert asked[4] is prompt and asked[5:] == (False, False)
    expected = found.received[..., 1].clamp(min=0).sum(1) / learner.model.base.cost_unit
    torch.testing.assert_close(courses.cost, expected)


def test_networks_are_asked_in_their_own_units(bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an episode asks for is scaled as the to-go sums that the base learned from; so are rewards and costs."""
    learner, asked = learner_of(bases / "cdt"), []
    base, policy, data = learner.model.base, learner.policy(), corridor_dataset(12)
    units = [float(base.return_unit), float(base.cost_unit)]
    assert abs(units[0] - 1) > 0.01 and abs(units[1] - 1) > 0.01
    received = np.stack([data.rewards, data.costs], -1).std(0, ddof=1) * units
    np.testing.assert_allclose(learner.model.heads.received_scale, received, rtol=1e-4)

    def spy(model: Any, config: Any, state: Tensor, to_go: Tensor, generator: Any) -> Any:
        asked.append(to_go)
        return align_by_prompt(model, config, state, to_go, generator)

    monkeypatch.setattr("safe_policy_core.methods.sas.policy.align", spy)
    policy.set_target_cost(2.0, 7.0)
    policy.reset(0)
    policy.align(START)
    np.testing.assert_allclose(asked[0], [7.0 * units[0], 2.0 * units[1]], rtol=1e-5)


def step_by_step(model: Any, state: Tensor, to_go: Tensor, action_noise: Tensor, latent: Tensor, prompt: Steps | None,
                 told: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """One course, every step with a whole pass over its context: a kept prompt and the newest quarter once full."""
    base, length = model.base, model.base.config.length
    first = 0 if prompt is None else prompt.actions.shape[1]
    kept = first if keep else 0
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
            context = context[:kept] + context[-((length - kept) // 4):]
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


@pytest.mark.parametrize(("method", "prompted", "told", "keep"), [
    ("dt", False, True, True), ("dt", True, True, True), ("dt", True, True, False), ("dt", True, False, True),
    ("cdt", True, True, True), ("cdt", True, True, False), ("dt_told", False, False, True),
    ("dt_told", True, False, True), ("dt_told", True, True, True)])
def test_imagination_equals_a_step_by_step_rollout(bases: Path, method: str, prompted: bool, told: bool, keep: bool
                                                   ) -> None:
    model = learner_of(bases / method).model
    with torch.no_grad():  # a base after few steps hardly looks at the time, or at the actions before
        model.base.actor.time.weight.copy_(torch.randn(model.base.actor.time.weight.shape))
        for layer in model.base.actor.transformer.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.weight *= 3
    draw = torch.Generator().manual_seed(1)
    noise = Noise.draw(model, 3, 25, draw)  # three times the context
    state, to_go = torch.randn(2, generator=draw), torch.tensor([8.0, 0.3])
    prompt = Steps(*(torch.randn(1, 3, size, generator=draw) for size in (2, 1, 2))) if prompted else None
    found = imagine(model, state, to_go, noise, prompt, told, keep)
    with torch.inference_mode():
        for course in range(3):
            expected = step_by_step(model, state, to_go, noise.action[course], noise.latent[course], prompt, told, keep)
            for mine, theirs in zip(found.steps, expected, strict=True):
                torch.testing.assert_close(mine[course], theirs, atol=2e-4, rtol=1e-4)
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
    with pytest.raises(ConfigurationError, match="prompt_steps: 2 prompts of 4 do not fit"):
        learner_of(bases / "dt").policy(SasConfig(prompts=2, prompt_steps=4))
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


def test_the_alignments_noise_is_not_that_of_the_actions(bases: Path) -> None:
    policy = learner_of(bases / "dt").policy()
    policy.reset(4)
    draws = [torch.randn(5, generator=generator) for generator in (policy._generator, policy.base._generator)]
    assert (draws[0] - draws[1]).abs().min() > 1e-3


def test_the_unknown_return_is_a_number(bases: Path) -> None:
    """A tensor on another device cannot be put into the history, which is NumPy's."""
    policy = learner_of(bases / "dt_told").policy()
    policy.reset(0)
    policy.base.prompt(np.zeros((3, 2)), np.zeros((3, 1)), np.full((3, 2), 5.0), True, told=False)
    assert isinstance(policy.base._unknown_return, float)


@pytest.mark.parametrize("changes", [
    {"trajectories": 0}, {"candidates": 0}, {"imagined_steps": -3}, {"energy_steps": 0}, {"evidence_draws": 0},
    {"discount": 0.0}, {"discount": 1.5}, {"return_spread": -0.1}, {"prompt_steps": 0}, {"prompts": 0},
    {"recorded": -5}, {"recorded_cost": -1.0}, {"recorded_quantile": 2.0}, {"realign": -1}, {"units": 0},
    {"latent": 0}, {"learning_rate": 0.0}, {"recorded_cost": float("nan")}, {"discount": float("nan")}])
def test_settings_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{next(iter(changes))}: expected "):
        SasConfig(**changes)


def test_heads_go_on_under_another_alignment(bases: Path, tmp_path: Path) -> None:
    """They depend on nothing of it, nor on where the base lies; with steps that are kept, on the prompts' length."""
    shutil.copytree(bases / "dt", tmp_path / "base")
    learner_of(bases / "dt").save(tmp_path / "sas")
    other = SasConfig(base=str(tmp_path / "base"), units=16, prompt_steps=2, imagined_steps=30, lyapunov="rising")
    learner: Any = make_learner("sas", SPECS, other)
    learner.load(tmp_path / "sas")
    assert learner.step == 2 and learner.config == other
    with pytest.raises(CheckpointError, match=r"config\.units: expected 8, the checkpoint has 16"):
        make_learner("sas", SPECS, replace(other, units=8)).load(tmp_path / "sas")
    kept = {"recorded": 3 * STEPS, "recorded_cost": 0.5, "recorded_quantile": 0.5}
    learner_of(bases / "cdt", **kept).save(tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"config\.prompt_steps: expected 2, the checkpoint has 3"):
        make_learner("sas", SPECS, replace(other, base=str(bases / "cdt"), **kept)).load(tmp_path / "kept")


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
