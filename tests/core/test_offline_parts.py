"""The parts that the value-based methods share, against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions, nn

from safe_policy_core.networks.action_vae import ActionVae, latent_kl
from safe_policy_core.networks.distributions import SquashedGaussian
from safe_policy_core.networks.lagrangian import PidLagrangian
from safe_policy_core.networks.paired import PairedMlp, TwinCritics, follow, soft_clipped

FLOAT32_NOISE = 1e-5
"""Tolerance of float32 arithmetic on numbers around 1."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def plain_networks(paired: PairedMlp) -> list[nn.Sequential]:
    """The same networks, one by one, of ordinary layers."""
    found = []
    for member in range(paired.state_weight.shape[0]):
        first = torch.cat([paired.state_weight[member], paired.choice_weight[member]])
        parts: list[nn.Module] = []
        for weight, bias in zip([first, *(w[member] for w in paired.weights)], paired.biases, strict=True):
            linear = nn.Linear(*weight.shape)
            with torch.no_grad():
                linear.weight.copy_(weight.T)
                linear.bias.copy_(bias[member, 0])
            parts += [linear, nn.ReLU()]
        found.append(nn.Sequential(*parts[:-1]))
    return found


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("rows", [(5,), (1, 5), (4, 5), (3, 2, 5)])
def test_paired_networks_are_separate_ones(layers: int, rows: tuple[int, ...]) -> None:
    paired = PairedMlp(3, 2, 4, 8, layers, members=3)
    state, choice = torch.randn(5, 3), torch.randn(*rows, 2)
    expected = torch.stack([network(torch.cat([state.expand(*rows, 3), choice], -1))
                            for network in plain_networks(paired)])
    assert torch.allclose(paired(state, choice), expected, atol=FLOAT32_NOISE)


def test_paired_networks_have_the_gradients_of_separate_ones() -> None:
    paired = PairedMlp(3, 2, 1, 8, 2, members=2)
    state, choice = torch.randn(5, 3), torch.randn(4, 5, 2, requires_grad=True)
    paired(state, choice).square().sum().backward()
    mine = choice.grad
    choice.grad = None
    networks = plain_networks(paired)
    for network in networks:
        network(torch.cat([state.expand(4, 5, 3), choice], -1)).square().sum().backward()
    assert torch.allclose(mine, choice.grad, atol=1e-4)
    first = torch.stack([network[0].weight.grad.T for network in networks])
    assert torch.allclose(torch.cat([paired.state_weight.grad, paired.choice_weight.grad], 1), first, atol=1e-4)


def test_critics_by_hand() -> None:
    critics = TwinCritics(3, 2, 8, 2, signals=2, target_rate=0.25)
    state, action = torch.randn(5, 3), torch.randn(5, 2)
    values = critics(state, action)
    assert values.shape == (2, 2, 5)
    targets = torch.randn(2, 5)
    expected = sum(((values[signal, twin] - targets[signal])**2).mean() for signal in range(2) for twin in range(2))
    assert critics.loss(values, targets).item() == pytest.approx(expected.item(), rel=1e-5)
    before = critics.target.choice_weight.clone()
    with torch.no_grad():
        critics.network.choice_weight.add_(1)
    critics.update_targets()
    assert torch.allclose(critics.target.choice_weight, before + 0.25, atol=FLOAT32_NOISE)


def test_following_at_rate_one_is_a_copy() -> None:
    target, source = nn.Linear(2, 2), nn.Linear(2, 2)
    follow(target, source, 1.0)
    assert torch.allclose(target.weight, source.weight)


def test_soft_clipping() -> None:
    pair = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    assert soft_clipped(pair, 0.75).tolist() == [1.5, 2.5]
    assert soft_clipped(pair, 1.0).tolist() == [1.0, 2.0]
    assert soft_clipped(pair, 0.0).tolist() == [3.0, 4.0]


def test_density_of_a_squashed_gaussian() -> None:
    parameters, noise = torch.randn(6, 4), torch.randn(6, 2)
    mine = SquashedGaussian(parameters)
    raw = mine.raw_sample(noise)
    normal = distributions.Normal(mine.mean, mine.log_deviation.exp())
    reference = distributions.TransformedDistribution(normal, distributions.TanhTransform())
    assert torch.allclose(mine.log_probability(raw), reference.log_prob(raw.tanh()).sum(-1), atol=1e-3)
    assert torch.isfinite(mine.log_probability(torch.full((6, 2), 30.0))).all()
    assert torch.equal(mine.mode, mine.mean.tanh())


def test_latent_divergence() -> None:
    mean, log_deviation = torch.randn(4, 3), torch.randn(4, 3)
    reference = distributions.kl_divergence(distributions.Normal(mean, log_deviation.exp()),
                                            distributions.Normal(0.0, 1.0)).mean(-1)
    assert torch.allclose(latent_kl(mean, log_deviation), reference, atol=FLOAT32_NOISE)


def test_vae_loss_by_hand() -> None:
    vae = ActionVae(3, 2, 8, kl_weight=0.5)
    state, action, noise = torch.randn(5, 3), torch.rand(5, 2), torch.randn(5, 4)
    mean, log_deviation = vae.encode(state, action)
    again = vae.decode(state, mean + log_deviation.exp() * noise).tanh()
    expected = ((again - action)**2).mean() + 0.5 * latent_kl(mean, log_deviation).mean()
    assert vae.loss(state, action, noise).item() == pytest.approx(expected.item())


def test_vae_candidates_come_from_the_likely_part_of_the_prior() -> None:
    vae = ActionVae(3, 2, 8)
    state = torch.randn(5, 3)
    assert torch.equal(vae.candidates(state, torch.full((5, 4), 7.0)), vae.decode(state, torch.full((5, 4), 0.5)))


def test_vae_knows_actions_of_the_data_from_others() -> None:
    """What CPQ rests on: the latent's divergence is larger for actions that the data do not have.

    Its size means little (where the state says all, nothing has to be encoded); CPQ takes the largest.
    """
    vae = ActionVae(2, 1, 32)
    optimiser = torch.optim.Adam(vae.parameters(), 1e-2)
    state = torch.randn(64, 2)
    action = 0.5 * state[:, :1].tanh()
    for _ in range(60):
        optimiser.zero_grad()
        vae.loss(state, action, torch.randn(64, 2)).backward()
        optimiser.step()
    inside, outside = (latent_kl(*vae.encode(state, value)) for value in (action, -action.sign()))
    assert (outside > inside.median()).float().mean() > 0.95


def test_pid_multiplier_by_hand() -> None:
    pid = PidLagrangian((0.5, 0.1, 2.0))
    # Error 1: 0.5 + 0.1 + 2 * 1.  Then 3: 0.5 * 3 + 0.1 * 4 + 2 * 2.  Then -2: the integral falls to 2, no derivative.
    for error, multiplier in ((1.0, 2.6), (3.0, 5.9), (-2.0, 0.0), (1.0, 0.5 + 0.3 + 6.0)):
        pid.update(torch.tensor([error, error]))
        assert pid.multiplier.item() == pytest.approx(multiplier)
    for _ in range(20):
        pid.update(torch.tensor(-5.0))
    assert pid.integral.item() == 0.0
    assert pid.multiplier.item() == 0.0
    assert not math.isnan(pid.previous.item())
