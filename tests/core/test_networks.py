"""Shared building blocks against hand-computed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.networks.actor import PlainActor
from safe_policy_core.networks.convolution import ImageDecoder, ImageEncoder
from safe_policy_core.networks.critic import Critic
from safe_policy_core.networks.distributions import (
    BoundedGaussian,
    balanced_kl,
    bernoulli_negative_log_likelihood,
    categorical_kl,
    exponential_noise,
    sample_one_hot,
    unimix_log_probabilities,
)
from safe_policy_core.networks.gru import NormGruCell
from safe_policy_core.networks.lagrangian import AugmentedLagrangian
from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.networks.normalisers import PercentileScale, Standardiser
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.networks.symlog import TwoHot, symexp, symlog

FLOAT32_NOISE = 1e-5
"""Tolerance of float32 arithmetic on numbers around 1."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSymlog:
    def test_values(self) -> None:
        assert symlog(torch.tensor([math.e - 1, 0.0, 1 - math.e])).tolist() == pytest.approx([1, 0, -1])

    def test_inverse(self) -> None:
        values = torch.tensor([-1000.0, -1.5, 0.0, 0.01, 42.0])
        assert torch.allclose(symexp(symlog(values)), values, rtol=1e-5)


class TestTwoHot:
    def test_weights_of_a_number_between_two_bins(self) -> None:
        # Bins at symlog -1, 0, 1: a number of symlog 0.25 is a quarter on the third.
        two_hot = TwoHot(3, -1, 1)
        weights = two_hot.encode(symexp(torch.tensor([0.25, -1.0, 5.0])))
        assert torch.allclose(weights, torch.tensor([[0, 0.75, 0.25], [1.0, 0, 0], [0, 0, 1.0]]), atol=FLOAT32_NOISE)

    @pytest.mark.parametrize("value", [-300.0, -1.0, 0.0, 0.003, 1.0, 80.0])
    def test_round_trip(self, value: float) -> None:
        two_hot = TwoHot()
        logits = two_hot.encode(torch.tensor(value)).clamp(min=1e-20).log()
        assert two_hot.mean(logits).item() == pytest.approx(value, rel=1e-4, abs=1e-4)

    def test_likelihood_is_the_cross_entropy_of_the_encoding(self) -> None:
        two_hot, target = TwoHot(), torch.tensor([0.0, 1.0, 7.3, -2.0, 1e12])
        logits = torch.randn(5, 255, generator=generator())
        expected = -(two_hot.encode(target) * logits.log_softmax(-1)).sum(-1)
        assert torch.allclose(two_hot.negative_log_likelihood(logits, target), expected, atol=1e-4)

    def test_uniform_logits_mean_zero(self) -> None:
        assert TwoHot().mean(torch.zeros(255)).item() == pytest.approx(0, abs=1e-4)


class TestCategorical:
    def test_unimix_keeps_every_class_possible(self) -> None:
        log = unimix_log_probabilities(torch.tensor([100.0, 0.0, 0.0, 0.0]), 0.01)
        assert log.exp().tolist() == pytest.approx([0.9925, 0.0025, 0.0025, 0.0025], abs=1e-6)

    def test_draws_follow_the_probabilities(self) -> None:
        probabilities = torch.tensor([0.1, 0.2, 0.7])
        noise = exponential_noise((20000, 3), generator())
        share = sample_one_hot(probabilities.log().expand(20000, 3), noise).mean(0)
        assert share.tolist() == pytest.approx(probabilities.tolist(), abs=0.015)

    def test_mode_and_straight_through_gradient(self) -> None:
        logits = torch.tensor([0.1, 2.0, 0.3], requires_grad=True)
        drawn = sample_one_hot(logits.log_softmax(-1), None)
        assert drawn.tolist() == pytest.approx([0, 1, 0])
        (gradient,) = torch.autograd.grad((drawn * torch.tensor([1.0, 0, 0])).sum(), logits)
        probabilities = logits.detach().softmax(-1)
        expected = probabilities[0] * (torch.tensor([1.0, 0, 0]) - probabilities)
        assert torch.allclose(gradient, expected, atol=FLOAT32_NOISE)

    def test_kl_by_hand(self) -> None:
        left, right = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
        assert categorical_kl(left, right).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))

    def test_free_bits_stop_the_gradient_below_one_nat(self) -> None:
        prior = torch.zeros(1, 1, 2, requires_grad=True)
        close = torch.tensor([[[0.6, 0.4]]]).log()
        loss, kl = balanced_kl(close, prior.log_softmax(-1), 1.0, 0.5, 0.1)
        assert kl.item() < 1
        assert loss.item() == pytest.approx(0.6)
        assert torch.autograd.grad(loss.sum(), prior)[0].abs().max() == 0

    def test_balanced_kl_weighs_both_sides(self) -> None:
        posterior = torch.tensor([[[3.0, -3.0]]], requires_grad=True)
        prior = torch.tensor([[[-3.0, 3.0]]], requires_grad=True)
        loss, kl = balanced_kl(posterior.log_softmax(-1), prior.log_softmax(-1), 1.0, 0.5, 0.1)
        assert loss.item() == pytest.approx(0.6 * kl.item(), rel=1e-5)
        alone = categorical_kl(posterior.detach().log_softmax(-1), prior.log_softmax(-1))
        expected = torch.autograd.grad(0.5 * alone.sum(), prior)[0]
        assert torch.allclose(torch.autograd.grad(loss.sum(), prior, retain_graph=True)[0], expected)
        # The posterior is pulled five times less.
        alone = categorical_kl(posterior.log_softmax(-1), prior.detach().log_softmax(-1))
        expected = torch.autograd.grad(0.1 * alone.sum(), posterior)[0]
        assert torch.allclose(torch.autograd.grad(loss.sum(), posterior)[0], expected)


class TestBernoulli:
    def test_value(self) -> None:
        loss = bernoulli_negative_log_likelihood(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.25]))
        expected = [math.log(2), -0.25 * math.log(0.75) - 0.75 * math.log(0.25)]
        assert loss.tolist() == pytest.approx(expected)


class TestBoundedGaussian:
    def test_density_is_finite_and_right_at_the_bounds(self) -> None:
        # Raw mean 0 and a deviation of 0.1 + 0.9 sigmoid(2).
        distribution = BoundedGaussian(torch.zeros(4))
        deviation = 0.1 + 0.9 / (1 + math.exp(-2))
        expected = 2 * (-0.5 / deviation**2 - math.log(deviation) - 0.5 * math.log(2 * math.pi))
        assert distribution.log_probability(torch.tensor([1.0, -1.0])).item() == pytest.approx(expected, rel=1e-5)

    def test_gradient_is_finite_for_saturated_actors(self) -> None:
        raw = torch.tensor([50.0, -50.0, -50.0, -50.0], requires_grad=True)
        loss = BoundedGaussian(raw).log_probability(torch.tensor([-1.0, 1.0]))
        assert torch.isfinite(torch.autograd.grad(loss, raw)[0]).all()

    def test_draws_are_clipped_and_reparametrised(self) -> None:
        raw = torch.zeros(2, 2, requires_grad=True)
        drawn = BoundedGaussian(raw).sample(torch.tensor([[0.1], [50.0]]))
        assert drawn[1].item() == 1
        gradient = torch.autograd.grad(drawn.sum(), raw)[0]
        assert gradient[0].abs().min() > 0
        assert gradient[1].abs().max() == 0

    def test_score_of_clipped_draws(self) -> None:
        # Both estimates of the gradient of E[(a - 0.3)^2 + 5]; a third of the draws are clipped.
        normal = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0))
        raw = torch.tensor([0.7, -1.0], requires_grad=True)
        action = BoundedGaussian(raw).sample(normal)
        value = (action.squeeze(-1) - 0.3).square() + 5
        expected = torch.autograd.grad(value.mean(), raw, retain_graph=True)[0]
        score = BoundedGaussian(raw).draw_log_probability(action.detach())
        found = torch.autograd.grad((value.detach() * score).mean(), raw)[0]
        assert torch.allclose(found, expected, atol=0.02)
        density = BoundedGaussian(raw).log_probability(action.detach())
        assert (torch.autograd.grad((value.detach() * density).mean(), raw)[0] - expected).abs().max() > 0.3

    def test_score_is_finite_for_saturated_actors(self) -> None:
        raw = torch.tensor([50.0, -50.0, -50.0, -50.0], requires_grad=True)
        loss = BoundedGaussian(raw).draw_log_probability(torch.tensor([-1.0, 1.0]))
        assert torch.isfinite(torch.autograd.grad(loss, raw)[0]).all()

    def test_entropy(self) -> None:
        distribution = BoundedGaussian(torch.tensor([0.0, -100.0]))
        assert distribution.entropy().item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.01), rel=1e-4)


class TestConvolution:
    def test_shapes_and_patches(self) -> None:
        encoder, decoder = ImageEncoder((64, 64, 3), 8, 4), ImageDecoder((64, 64, 3), 10, 8, 4)
        image = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
        assert encoder(image).shape == (2, encoder.size) == (2, 16 * 32)
        assert decoder(torch.zeros(2, 10)).shape == (2, 64, 64, 3)

    def test_one_pixel_is_seen(self) -> None:
        encoder = ImageEncoder((32, 32, 3), 8, 4)
        image = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
        image[1, 17, 5, 2] = 255
        first, second = encoder(image)
        assert (first - second).abs().max() > 1e-3

    def test_decoder_learns_a_small_object_in_its_place(self) -> None:
        torch.manual_seed(0)
        decoder = ImageDecoder((32, 32, 3), 2, 8, 4)
        target = torch.zeros(2, 32, 32, 3)
        target[0, 3:6, 20:23], target[1, 25:28, 8:11] = 1, 1
        optimiser = Optimiser(decoder, 1e-2, 100)
        for _ in range(150):
            optimiser.step((decoder(torch.eye(2)) - target).square().sum())
        assert (decoder(torch.eye(2)) - target).abs().max() < 0.2

    @pytest.mark.parametrize("shape", [(60, 60, 3), (64, 32, 3), (64, 64)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigurationError, match="does not fit a stem"):
            ImageEncoder(shape, 8, 4)


def test_gru_remembers_with_a_closed_update_gate() -> None:
    cell = NormGruCell(2, 3)
    with torch.no_grad():
        cell.norm.weight.zero_()
        # Gates: reset 0.5, candidate tanh(0.5 * 2), update sigmoid(1 - 1).
        cell.norm.bias.copy_(torch.tensor([0.0] * 3 + [2.0] * 3 + [1.0] * 3))
    state = torch.tensor([[1.0, 0.0, -1.0]])
    expected = 0.5 * state + 0.5 * math.tanh(1.0)
    assert torch.allclose(cell(torch.zeros(1, 2), state), expected)


def test_zero_scale_starts_the_last_layer_at_zero() -> None:
    assert Mlp(4, 3, 8, 2, output_scale=0.0)(torch.randn(5, 4)).abs().max() == 0


class TestCritic:
    def critic(self, pessimism: str, two_hot: bool = False) -> Critic:
        torch.manual_seed(0)
        critic = Critic(3, 2, 16, 1, pessimism=pessimism, two_hot=two_hot)
        for network in [*critic.networks, *critic.targets]:
            torch.nn.init.normal_(network.output.weight)
        return critic

    @pytest.mark.parametrize("two_hot", [False, True])
    def test_pessimism(self, two_hot: bool) -> None:
        state, action = torch.randn(7, 3), torch.randn(7, 2)
        for pessimism, reduce in (("min", torch.amin), ("max", torch.amax)):
            critic = self.critic(pessimism, two_hot)
            both = critic.numbers(critic.outputs(state, action))
            assert (both[0] - both[1]).abs().max() > 1e-3
            assert torch.equal(critic(state, action), reduce(both, 0))

    def test_squared_errors_of_both_networks(self) -> None:
        critic = self.critic("min")
        outputs = [torch.tensor([[1.0]]), torch.tensor([[3.0]])]
        assert critic.loss(outputs, torch.tensor([2.5])).tolist() == pytest.approx([1.5**2 + 0.5**2])
        slow = [torch.tensor([[1.5]]), torch.tensor([[0.0]])]
        assert critic.slow_loss(outputs, slow).tolist() == pytest.approx([0.25 + 9])

    def test_targets_follow_at_their_rate(self) -> None:
        critic = self.critic("min")
        source, target = critic.networks[0].output.weight, critic.targets[0].output.weight
        expected = 0.98 * target + 0.02 * source
        critic.update_targets()
        assert torch.allclose(target, expected)


class TestPercentileScale:
    def test_range_and_floor(self) -> None:
        scale = PercentileScale()
        scale.update(torch.linspace(0, 100, 101))
        assert scale.scale().item() == pytest.approx(90)
        scale.update(torch.zeros(50))
        assert scale.scale().item() == pytest.approx(0.99 * 90, rel=1e-5)
        small = PercentileScale()
        small.update(torch.linspace(0, 0.1, 11))
        assert small.scale().item() == 1


class TestStandardiser:
    def test_mean_and_deviation_over_batches_then_frozen(self) -> None:
        values = torch.randn(10, 64, 3, generator=generator()) * torch.tensor([0.05, 2.0, 0.3]) + torch.tensor(
            [0.5, -3.0, 0.0])
        standardiser = Standardiser(3, batches=10)
        for batch in values:
            standardiser.update(batch)
        flat = values.reshape(-1, 3)
        assert torch.allclose(standardiser.mean, flat.mean(0), atol=1e-5)
        assert torch.allclose(standardiser.variance.sqrt(), flat.std(0, unbiased=False), rtol=1e-3)
        before = standardiser.mean.clone()
        standardiser.update(torch.full((5, 3), 100.0))
        assert torch.equal(standardiser.mean, before)
        assert torch.allclose(standardiser.inverse(standardiser(flat)), flat, atol=1e-5)

    def test_a_centimetre_matters_and_a_still_element_is_not_blown_up(self) -> None:
        standardiser = Standardiser(2)
        standardiser.update(torch.tensor([[0.45, 0.3], [0.55, 0.3]]))
        one, other = standardiser(torch.tensor([[0.50, 0.3], [0.51, 0.301]]))
        assert (other - one)[0].item() == pytest.approx(0.2, rel=1e-3)
        assert (other - one)[1].item() == pytest.approx(0.1, rel=1e-2)


class TestAugmentedLagrangian:
    def test_phi_in_both_branches(self) -> None:
        lagrangian = AugmentedLagrangian(multiplier=0.5, penalty=0.2)
        # 0.5 + 0.1 g >= 0 for g >= -5. g = 2: 0.5 * 2 + 0.05 * 4. g = -10: -0.25 / 0.2.
        assert lagrangian.phi(torch.tensor([2.0, -10.0])).tolist() == pytest.approx([1.2, -1.25])

    def test_multiplier_in_both_branches_and_growth(self) -> None:
        lagrangian = AugmentedLagrangian(multiplier=0.5, penalty=0.2, growth=0.1)
        lagrangian.update(torch.tensor([1.0, 3.0]))
        assert lagrangian.multiplier.item() == pytest.approx(0.5 + 0.1 * 2)
        assert lagrangian.penalty.item() == pytest.approx(0.22)
        lagrangian.update(torch.tensor(-100.0))
        assert lagrangian.multiplier.item() == 0

    def test_penalty_grows_even_by_the_papers_tiny_rate_and_stops_at_one(self) -> None:
        lagrangian = AugmentedLagrangian()
        lagrangian.update(torch.zeros(1))
        assert lagrangian.penalty.item() == pytest.approx(1e-6 * (1 + 5e-9), rel=1e-12)
        assert lagrangian.penalty.item() > 1e-6
        saturated = AugmentedLagrangian(penalty=0.9, growth=1.0)
        saturated.update(torch.zeros(1))
        assert saturated.penalty.item() == 1

    def test_gradient(self) -> None:
        constraint = torch.tensor(2.0, requires_grad=True)
        AugmentedLagrangian(0.5, 0.2).phi(constraint).backward()
        assert constraint.grad is not None
        assert constraint.grad.item() == pytest.approx(0.5 + 0.1 * 2)


class TestOptimiser:
    def test_only_its_own_parameters_move(self) -> None:
        mine, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
        before = other.weight.clone()
        optimiser = Optimiser(mine, 0.1, 1.0)
        norm = optimiser.step(other(mine(torch.ones(1, 2))).sum() * 100)
        assert norm > 1
        assert torch.equal(other.weight, before)
        assert other.weight.grad is None

    def test_state_round_trip_continues_exactly(self) -> None:
        def train(layer: torch.nn.Linear, optimiser: Optimiser, steps: int) -> None:
            for _ in range(steps):
                optimiser.step((layer(torch.ones(1, 3)) - 1).square().sum())

        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimiser = Optimiser(layer, 0.01, 1.0)
        train(layer, optimiser, 3)
        copy = torch.nn.Linear(3, 2)
        copy.load_state_dict(layer.state_dict())
        resumed = Optimiser(copy, 0.01, 1.0)
        resumed.load(optimiser.tensors())
        train(layer, optimiser, 3)
        train(copy, resumed, 3)
        assert torch.equal(layer.weight, copy.weight)

    def test_a_loss_that_is_not_finite_changes_nothing(self) -> None:
        layer = torch.nn.Linear(2, 2)
        before = layer.weight.clone()
        with pytest.raises(FloatingPointError, match="gradient norm is nan"):
            Optimiser(layer, 0.1, 1.0).step(layer(torch.full((1, 2), np.nan)).sum())
        assert torch.equal(layer.weight, before)


def test_optimiser_resumes_exactly_with_channels_last_weights() -> None:
    """The fused Adam goes by memory order; a moment restored in another layout would move wrong elements."""
    def layer() -> torch.nn.Conv2d:
        torch.manual_seed(0)
        return torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)

    def steps(module: torch.nn.Conv2d, optimiser: Optimiser, first: int, last: int) -> None:
        for number in range(first, last):
            torch.manual_seed(number)
            optimiser.step((module(torch.randn(2, 4, 6, 6)) - torch.randn(2, 8, 4, 4)).square().mean())

    whole = layer()
    steps(whole, Optimiser(whole, 1e-2, 1.0), 0, 6)
    first = layer()
    optimiser = Optimiser(first, 1e-2, 1.0)
    steps(first, optimiser, 0, 3)
    saved = {name: value.clone(memory_format=torch.contiguous_format) for name, value in optimiser.tensors().items()}
    second = Optimiser(first, 1e-2, 1.0)
    second.load(saved)
    steps(first, second, 3, 6)
    torch.testing.assert_close(first.weight, whole.weight, rtol=0, atol=0)


def test_a_plain_actor_does_not_mind_units() -> None:
    """The same weights on metres and on shifted millimetres, each with its own statistics, say the same."""
    states, found = torch.randn(64, 3, generator=generator()), []
    for values in (states, 1000 * states + 5):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            actor = PlainActor(3, 2, 8, 2)
        actor.update_statistics(values)
        found.append(actor(values).mean)
    assert torch.allclose(found[0], found[1], atol=1e-4)
    # No norm behind the first layer: twice as far from the mean is not the same.
    assert not torch.allclose(actor(2000 * states + 5).mean, found[1], atol=1e-2)
