import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.dspo.config import CloningConfig, DiffusionConfig, DiscriminatorConfig, DspoConfig
from safe_policy_core.methods.dspo.diffusion_stage import (
    DiffusionStage,
    desired_conditions,
    diffusion_loss,
    likely_lengths,
    pieces,
)
from safe_policy_core.methods.dspo.trajectories import DiffusionSource
from safe_policy_core.networks.diffusion import Diffusion, guided
from safe_policy_core.networks.unet1d import TemporalUnet, TimeConv, TimeNorm
from tests.core.dspo_rig import CONFIG, lines

STEPS = 50


def unet(channels: int = 3, seed: int = 0) -> TemporalUnet:
    torch.manual_seed(seed)
    return TemporalUnet(channels, 16, (1, 2), 2)


def test_forward_variance_and_mean() -> None:
    """Appendix B unrolled: x^t of many draws has mean sqrt(alpha_bar) x^0 and variance 1 - alpha_bar."""
    diffusion = Diffusion(STEPS)
    torch.manual_seed(0)
    clean = torch.full((20_000, 1), 0.7)
    for step in (0, 20, STEPS - 1):
        noisy = diffusion.noisy(clean, torch.full((20_000,), step), torch.randn_like(clean))
        level = float(diffusion.alpha_bar[step + 1])
        assert float(noisy.mean()) == pytest.approx(math.sqrt(level) * 0.7, abs=0.02)
        assert float(noisy.var()) == pytest.approx(1 - level, abs=0.03)
    assert float(diffusion.alpha_bar[-1]) < 1e-3  # nothing of the data is left at the end
    assert (diffusion.alpha_bar.diff() < 0).all()


def test_one_step_forward_composes() -> None:
    """x^t = sqrt(alpha^t) x^{t-1} + sqrt(1 - alpha^t) eps has the variance that `noisy` has in one go."""
    bars = Diffusion(STEPS).alpha_bar.double()
    alpha, variance = bars[1:] / bars[:-1], torch.zeros(())
    for value in alpha:
        variance = value * variance + (1 - value)
    assert float(variance) == pytest.approx(1 - float(bars[-1]), abs=1e-9)


@pytest.mark.parametrize(("steps", "eta"), [(STEPS, 1.0), (STEPS, 0.0), (10, 0.0), (1, 0.0)])
def test_a_perfect_denoiser_recovers_the_data(steps: int, eta: float) -> None:
    diffusion, generator = Diffusion(STEPS), torch.Generator().manual_seed(0)
    clean = torch.rand(4, 6, 3, generator=generator) * 2 - 1

    def perfect(value: Tensor, step: Tensor) -> Tensor:
        level = diffusion.alpha_bar[step + 1].view(-1, 1, 1)
        return (value - level.sqrt() * clean) / (1 - level).sqrt()

    sampled = diffusion.sample(perfect, torch.randn(clean.shape, generator=generator), generator, steps, eta)
    torch.testing.assert_close(sampled, clean, atol=2e-3, rtol=0)


def test_eta_one_is_ddpm() -> None:
    """With consecutive steps and eta 1 a step is appendix B's mean and the posterior's deviation; 0 draws nothing."""
    diffusion, generator = Diffusion(STEPS), torch.Generator().manual_seed(1)
    value, noise, fresh = (torch.randn(5, 4, 2, generator=generator) for _ in range(3))
    for now in (1, 17, STEPS - 2):
        step = torch.full((5,), now)
        bar, before = (float(diffusion.alpha_bar[index]) for index in (now + 1, now))
        alpha = bar / before
        mean = (value - (1 - alpha) / math.sqrt(1 - bar) * noise) / math.sqrt(alpha)
        deviation = math.sqrt((1 - alpha) * (1 - before) / (1 - bar))
        ours = diffusion.back(value, step, step - 1, noise, 1.0, fresh)
        torch.testing.assert_close(ours, mean + deviation * fresh, atol=2e-5, rtol=1e-4)
        drawn = diffusion.back(value, step, step - 1, noise, 0.0, fresh)
        torch.testing.assert_close(drawn, diffusion.back(value, step, step - 1, noise, 0.0, -fresh))


def test_ddim_steps_do_not_matter_for_one_gaussian() -> None:
    """For data N(0, s^2) the optimal denoiser is known; few and many deterministic steps end near the same map."""
    diffusion, generator, deviation = Diffusion(200), torch.Generator().manual_seed(2), 0.3

    def optimal(value: Tensor, step: Tensor) -> Tensor:
        level = diffusion.alpha_bar[step + 1].view(-1, 1)
        return value * (1 - level).sqrt() / (level * deviation**2 + 1 - level)

    start = torch.randn(5000, 1, generator=generator)
    many, few = (diffusion.sample(optimal, start, generator, steps, 0.0) for steps in (200, 20))
    assert float(many.std()) == pytest.approx(deviation, rel=0.05)
    assert float((many - few).abs().mean()) < 0.05
    ddpm = diffusion.sample(optimal, start, generator, 200, 1.0)
    assert float(ddpm.std()) == pytest.approx(deviation, rel=0.05)


def test_bound_keeps_what_is_generated_inside() -> None:
    diffusion, generator = Diffusion(STEPS), torch.Generator().manual_seed(0)
    sampled = diffusion.sample(lambda value, step: torch.zeros_like(value), torch.randn(8, 4, 2, generator=generator),
                               generator, 10, 0.0, bound=1.0)
    assert float(sampled.abs().max()) <= 1 + 1e-6


def test_guidance_zero_is_unconditional_and_one_conditional() -> None:
    network = unet().eval()
    value, step = torch.randn(4, 8, 3), torch.arange(4)
    conditions, ones = torch.rand(4, 2), torch.ones(4)
    with torch.no_grad():
        given, without = network(value, step, conditions, ones), network(value, step, conditions, 0 * ones)
        other = network(value, step, 1 - conditions, 0 * ones)
        torch.testing.assert_close(guided(network, conditions, 0.0)(value, step), without, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(guided(network, conditions, 1.0)(value, step), given, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(guided(network, conditions, 1.2)(value, step), without + 1.2 * (given - without),
                                   atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other, without)  # without conditions their values do not matter
    assert float((given - without).abs().max()) > 1e-3


def test_convolution_over_time_is_torchs_own() -> None:
    """Values and all gradients, for several sequences, against `conv1d` with zeros around each of them."""
    torch.manual_seed(0)
    ours = TimeConv(3, 4, 5).double()
    value = torch.randn(2, 7, 3, dtype=torch.double, requires_grad=True)
    theirs = functional.conv1d(value.transpose(1, 2), ours.weight.permute(2, 1, 0), ours.bias, padding=2)
    torch.testing.assert_close(ours(value), theirs.transpose(1, 2))
    weights = torch.randn(2, 7, 4, dtype=torch.double)
    inputs = (value, ours.weight, ours.bias)
    for one, other in zip(torch.autograd.grad((ours(value) * weights).sum(), inputs),
                          torch.autograd.grad((theirs.transpose(1, 2) * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_group_norm_over_time_is_torchs_own() -> None:
    norm, value = TimeNorm(2, 4), torch.randn(3, 5, 4)
    torch.testing.assert_close(norm(value), nn.GroupNorm(2, 4)(value.transpose(1, 2)).transpose(1, 2))


def test_unet_shapes_and_what_does_not_fit() -> None:
    network = unet(5)
    ones = torch.ones(2)
    assert network(torch.randn(2, 12, 5), torch.zeros(2, dtype=torch.long), torch.rand(2, 2), ones).shape == (2, 12, 5)
    with pytest.raises(ConfigurationError, match="horizon"):
        network(torch.randn(2, 13, 5), torch.zeros(2, dtype=torch.long), torch.rand(2, 2), ones)
    with pytest.raises(ConfigurationError, match="dim"):
        TemporalUnet(5, 12, (1, 2), 2)
    with pytest.raises(ConfigurationError, match="sampling steps"):
        Diffusion(5).sample(lambda value, step: value, torch.zeros(1, 1), torch.Generator(), 6)


def test_loss_by_hand() -> None:
    """Eq. 6: the network sees x^t, and the loss is the mean squared error of its noise."""
    diffusion, seen = Diffusion(STEPS), []

    class Constant(nn.Module):
        def forward(self, value: Tensor, step: Tensor, conditions: Tensor, keep: Tensor) -> Tensor:
            seen.append(value)
            return torch.full_like(value, 0.5)

    clean, noise, step = torch.ones(1, 2, 1), torch.tensor([[[1.0], [-1.0]]]), torch.tensor([9])
    loss = diffusion_loss(Constant(), diffusion, clean, step, noise, torch.zeros(1, 2), torch.ones(1))
    assert float(loss) == pytest.approx((0.25 + 2.25) / 2)
    level = float(diffusion.alpha_bar[10])
    assert seen[0][0, 0, 0].item() == pytest.approx(math.sqrt(level) + math.sqrt(1 - level))


def test_pieces_tell_where_an_episode_ends() -> None:
    batch = {"states": np.zeros((1, 3, 2), np.float32), "actions": np.ones((1, 3, 1), np.float32),
             "mask": np.array([[True, True, False]])}
    assert pieces(batch)[0, :, -1].tolist() == [1.0, 1.0, -1.0]


def test_lengths_survive_a_wrong_number() -> None:
    lasts = np.array([[1, 1, -0.5, 1, -1, -1], [-1, -1, -1, -1, -1, -1], [1, 1, 1, 1, 1, 1], [0.3, -1, 0.2, -1, -1, 1]])
    assert likely_lengths(lasts).tolist() == [4, 1, 6, 1]


def test_desired_conditions_are_the_demonstrations() -> None:
    """Appendix D.1: returns in the range of D^S, and its smallest signal, here as the share of signals below it."""
    trajectories = lines(6, safe=3)
    signals = np.array([0.9, 0.7, 0.8, 0.1, 0.2, 0.3])
    wanted = desired_conditions(trajectories, signals, 50, 0)
    scaled = trajectories.scaled_return(trajectories.returns[:3])
    assert (wanted[:, 1] == np.float32(0.6)).all()
    assert (desired_conditions(trajectories, signals, 50, 0, quantile=0.5)[:, 1] == np.float32(0.8)).all()
    assert wanted[:, 0].min() >= scaled.min() - 1e-6
    assert wanted[:, 0].max() <= scaled.max() + 1e-6


@pytest.mark.parametrize("predicts", ["clean", "noise"])
def test_it_learns_conditions_and_lengths(predicts: Literal["clean", "noise"]) -> None:
    """Lines whose slope is their return and whose length is 6 or 8."""
    config = DspoConfig(DiscriminatorConfig(), DiffusionConfig(
        predicts=predicts, horizon=8, dim=24, multipliers=(1,), diffusion_steps=20, learning_rate=5e-3, ema=0.95),
        CloningConfig())
    trajectories = lines(40, safe=5)
    stage = DiffusionStage(trajectories.specs, config)
    source = DiffusionSource(trajectories, np.full(40, 0.5))
    for step in range(100):
        torch.manual_seed(step)
        stage.update(source.sample(32, 8, np.random.default_rng(step)))
    wanted = np.array([[0.0, 0.0]] * 8 + [[1.0, 0.0]] * 8, np.float32)
    made = stage.generate(wanted, 0)
    slope = made.states[:, 5, 0] - made.states[:, 0, 0]
    assert slope[8:].mean() - slope[:8].mean() > 0.5
    assert np.isin(made.mask.sum(1), (5, 6, 7, 8)).mean() > 0.7
    again, other = stage.generate(wanted, 0), stage.generate(wanted, 1)
    np.testing.assert_array_equal(again.states, made.states)
    assert (other.states != made.states).any()


def updated(steps: int, **settings: float) -> tuple[DiffusionStage, list[list[Tensor]]]:
    """A stage after some steps, and the U-Net's weights before the first and after each."""
    trajectories = lines(6, safe=2)
    stage = DiffusionStage(trajectories.specs, dataclasses.replace(
        CONFIG, diffusion=dataclasses.replace(CONFIG.diffusion, **settings)))  # type: ignore[arg-type]
    source, weights = DiffusionSource(trajectories, np.linspace(0, 1, 6)), []
    for step in range(steps + 1):
        weights.append([value.detach().clone() for value in stage.networks["unet"].parameters()])
        if step < steps:
            torch.manual_seed(step)
            stage.update(source.sample(8, 8, np.random.default_rng(step)))
    return stage, weights


@pytest.mark.parametrize(("dropout", "learns"), [(1.0, False), (0.0, True)])
def test_conditions_are_left_out_as_often_as_asked(dropout: float, learns: bool) -> None:
    """Always left out, nothing of them is learned; the rest of the network is."""
    stage, weights = updated(1, condition_dropout=dropout)
    names = [name for name, _ in stage.networks["unet"].named_parameters()]
    moved = {name: not torch.equal(*pair) for name, *pair in zip(names, *weights, strict=True)}
    assert any(moved[name] for name in names if name.startswith("condition_embedding")) == learns
    assert any(moved[name] for name in names if name.startswith("output"))


def test_the_average_of_weights_by_hand() -> None:
    """Kept is n / (n + 10) of it in step n, at most `ema`: 1/11, then 2/12, then 0.2."""
    stage, weights = updated(3, ema=0.2, learning_rate=0.1)
    for average, first, *others in zip(stage.networks["average"].parameters(), *weights, strict=True):
        expected = first
        for kept, now in zip((1 / 11, 2 / 12, 0.2), others, strict=True):
            expected = kept * expected + (1 - kept) * now
        torch.testing.assert_close(average.detach(), expected)


def test_the_average_generates() -> None:
    stage, _ = updated(1)
    wanted = np.zeros((2, 2), np.float32)
    before = stage.generate(wanted, 0)
    with torch.no_grad():
        next(stage.networks["unet"].parameters()).add_(1)
        np.testing.assert_array_equal(stage.generate(wanted, 0).states, before.states)
        next(stage.networks["average"].parameters()).add_(1)
    assert (stage.generate(wanted, 0).states != before.states).any()


def test_same_seed_same_weights() -> None:
    trajectories, weights = lines(6, safe=2), []
    for _ in range(2):
        stage = DiffusionStage(trajectories.specs, CONFIG, seed=3)
        for step in range(2):
            torch.manual_seed(step)
            stage.update(DiffusionSource(trajectories, np.linspace(0, 1, 6)).sample(4, 8, np.random.default_rng(step)))
        weights.append(stage.networks["average"].state_dict())
        torch.randn(7)  # what the process drew before does not matter
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
