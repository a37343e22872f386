"""The RSSM and the world model: masks, losses, shapes, learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.networks.symlog import TwoHot
from safe_policy_core.world_model import LatentState, WorldModel, WorldModelConfig, to_batch
from tests.core.fosp_rig import IMAGE_SPECS, STATE_SPECS, dataset, random_batch, tiny_config, windows


def model_of(specs: Specs, seed: int = 0, **changes: object) -> WorldModel:
    torch.manual_seed(seed)
    return WorldModel(specs, tiny_config(**changes).world_model)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestObserve:
    def test_is_first_starts_anew_and_ignores_the_action(self) -> None:
        model = model_of(IMAGE_SPECS)
        batch = to_batch(random_batch(IMAGE_SPECS), IMAGE_SPECS, "cpu")
        # Row 1 begins a new episode at 4; with the same noise it must equal a sequence that begins there.
        noise = model.rssm.noise((3, 8), generator())
        states, _, _ = model.rssm.observe(model.encoder(batch), batch["action"], batch["is_first"], noise)
        tail = {name: value[:, 4:] for name, value in batch.items()}
        first = tail["is_first"].clone()
        first[:, 0] = True
        # Another action before the first observation makes no difference either.
        actions = batch["action"][:, 4:].clone()
        actions[:, 0] += 5
        alone, _, _ = model.rssm.observe(model.encoder(tail), actions, first, noise[:, 4:])
        assert torch.allclose(states.deter[1, 4:], alone.deter[1], atol=1e-6)
        assert torch.equal(states.stochastic[1, 4:], alone.stochastic[1])
        assert not torch.allclose(states.deter[0, 4], alone.deter[0, 0], atol=1e-3)

    def test_single_steps_equal_the_sequence(self) -> None:
        model = model_of(IMAGE_SPECS)
        batch = to_batch(random_batch(IMAGE_SPECS), IMAGE_SPECS, "cpu")
        noise = model.rssm.noise((3, 8), generator())
        embedding = model.encoder(batch)
        states, _, _ = model.rssm.observe(embedding, batch["action"], batch["is_first"], noise)
        state = model.rssm.initial(3)
        for step in range(4):
            action = torch.zeros(3, 6) if step == 0 else batch["action"][:, step]
            state = model.rssm.observe_step(state, action, embedding[:, step], noise[:, step])
            assert torch.allclose(state.features, states.features[:, step], atol=1e-6)

    def test_posterior_depends_on_the_observation_and_prior_does_not(self) -> None:
        model = model_of(STATE_SPECS)
        arrays = random_batch(STATE_SPECS)
        one = to_batch(arrays, STATE_SPECS, "cpu")
        moved = arrays["vector"].copy()
        moved[:, 0] += 3
        other = to_batch(arrays | {"vector": moved}, STATE_SPECS, "cpu")
        _, posterior, prior = model.observe(one, generator())
        _, other_posterior, other_prior = model.observe(other, generator())
        assert not torch.allclose(posterior[:, 0], other_posterior[:, 0])
        assert torch.equal(prior[:, 0], other_prior[:, 0])

    def test_latents_are_one_hot(self) -> None:
        model = model_of(STATE_SPECS)
        states, _, _ = model.observe(to_batch(random_batch(STATE_SPECS), STATE_SPECS, "cpu"), generator())
        groups = states.stochastic.detach().unflatten(-1, (4, 4))
        assert torch.allclose(groups.sum(-1), torch.ones(3, 8, 4))
        assert torch.allclose(groups.amax(-1), torch.ones(3, 8, 4))


class TestImagine:
    def test_shapes_and_gradient_to_the_actions(self) -> None:
        model = model_of(STATE_SPECS)
        actions = torch.zeros(3, 5, 2, requires_grad=True)
        rollout = model.rssm.imagine(model.rssm.initial(5), lambda _, step: actions[step], 3, generator())
        assert rollout.features.shape == (4, 5, model.feature_size)
        assert rollout.actions.shape == (3, 5, 2)
        gradient = torch.autograd.grad(rollout.features[2].square().sum(), actions)[0]
        assert gradient[0].abs().min() > 0
        assert gradient[2].abs().max() == 0

    def test_select_takes_rows_of_sequences(self) -> None:
        state = LatentState(torch.arange(6.0).view(2, 3, 1), torch.arange(6.0).view(2, 3, 1) * 10)
        assert state.select(torch.tensor([4, 0])).features.tolist() == [[4, 40], [0, 0]]


class TestLoss:
    def test_terms_by_hand(self) -> None:
        model = model_of(IMAGE_SPECS, decoded_fraction=1.0, vector_scale=2.0, colour_scale=1.0)
        arrays = random_batch(IMAGE_SPECS)
        batch = to_batch(arrays, IMAGE_SPECS, "cpu")
        loss, states, metrics = model.loss(batch, generator())
        features = states.features
        pixels = model.decoder.images["image"](features.flatten(0, 1))
        error = (pixels.view(3, 8, 16, 16, 3) - batch["image"].float() / 255).square().sum((2, 3, 4)).mean()
        assert metrics["model/image"].item() == pytest.approx(error.item(), rel=1e-5)
        two_hot = TwoHot()
        each = -(two_hot.encode(batch["cost"]) * model.cost_head(features).log_softmax(-1)).sum(-1)
        weighted = torch.where(batch["cost"] >= 1, 10 * each, each).mean()
        assert metrics["model/cost"].item() == pytest.approx(weighted.item(), rel=1e-4)
        probability = model.continuation(features)
        expected = -torch.where(batch["is_terminal"], (1 - probability).log(), probability.log()).mean()
        assert metrics["model/continue"].item() == pytest.approx(expected.item(), rel=1e-4)
        terms = [value for name, value in metrics.items() if name != "model/kl_nats"]
        assert loss.item() == pytest.approx(sum(term.item() for term in terms), rel=1e-5)

    def test_colour_weighs_more_than_brightness(self) -> None:
        model = model_of(IMAGE_SPECS, colour_scale=3.0)
        features = torch.zeros(2, model.feature_size)
        flat = model.decoder.images["image"](features).detach()
        # Off by (0.2, -0.1, -0.1) in one pixel: colour alone. Off by 0.1 in all channels of one: brightness alone.
        target = flat.clone()
        target[0, 3, 4] += torch.tensor([0.2, -0.1, -0.1])
        target[1, 3, 4] += 0.1
        loss = model.decoder.image_loss(features, {"image": target * 255})
        assert loss.tolist() == pytest.approx([3 * 0.06, 0.03], rel=1e-3)

    def test_reward_and_cost_start_at_zero(self) -> None:
        model = model_of(STATE_SPECS)
        features = torch.randn(4, model.feature_size)
        assert model.reward(features).abs().max() < 1e-3
        assert model.cost(features).abs().max() < 1e-3

    def test_decoding_a_share_keeps_the_mean(self) -> None:
        arrays = random_batch(IMAGE_SPECS, batch=8, length=16)
        values = {}
        for share in (1.0, 0.5):
            model = model_of(IMAGE_SPECS, decoded_fraction=share)
            values[share] = model.loss(to_batch(arrays, IMAGE_SPECS, "cpu"), generator())[2]["model/image"].item()
        assert values[0.5] == pytest.approx(values[1.0], rel=0.05)
        assert values[0.5] != values[1.0]

    def test_missing_and_misshapen_fields_are_named(self) -> None:
        arrays = random_batch(STATE_SPECS)
        with pytest.raises(DatasetError, match="batch next_action: expected shape"):
            to_batch(arrays | {"next_action": arrays["next_action"][..., :1]}, STATE_SPECS, "cpu")
        del arrays["cost"]
        with pytest.raises(DatasetError, match="missing cost"):
            to_batch(arrays, STATE_SPECS, "cpu")

    def test_unsupported_observations_are_named(self) -> None:
        specs = Specs({"depth": Spec("observation/depth", (8, 8))}, STATE_SPECS.action)
        with pytest.raises(ConfigurationError, match="observation depth"):
            model_of(specs)


def test_full_preset_is_the_papers_table() -> None:
    config = WorldModelConfig.full()
    assert (config.latents, config.classes, config.deter, config.units, config.layers) == (48, 48, 512, 512, 5)
    assert (config.learning_rate, config.representation_scale) == (1e-4, 0.1)


def test_learns_to_predict_rewards_costs_and_ends() -> None:
    torch.set_num_threads(1)
    rows, rng, draw = dataset(40), np.random.default_rng(0), generator()
    model = model_of(STATE_SPECS, latents=8, classes=8, deter=32, units=32, vector_scale=20.0, learning_rate=3e-3)
    optimiser = Optimiser(model, model.config.learning_rate, 1000.0)
    for _ in range(400):
        batch = to_batch(windows(rows, 8, 16, rng), STATE_SPECS, "cpu")
        model.encoder.update_statistics(batch)
        optimiser.step(model.loss(batch, draw)[0])
    batch = to_batch(windows(rows, 32, 24, rng), STATE_SPECS, "cpu")
    with torch.no_grad():
        features = model.observe(batch, draw)[0].features
        cost, going_on = model.cost(features), model.continuation(features)
    costly = batch["cost"] > 0
    assert cost[costly].mean() > cost[~costly].mean() + 0.5
    assert going_on[batch["is_terminal"]].mean() < 0.6
    assert going_on[~batch["is_terminal"]].mean() > 0.95
    # Open loop: from the state at row 8 the recorded actions lead to the recorded vectors.
    with torch.no_grad():
        states = model.observe(batch, draw)[0]
        state = LatentState(states.deter[:, 8], states.stochastic[:, 8])
        for step in range(9, 13):
            state = model.rssm.imagine_step(state, batch["action"][:, step], None)
        vector = model.decoder.decode(state.latent, model.encoder)["vector"]
    whole = ~batch["is_first"][:, 9:13].any(1)
    error = (vector - batch["vector"][:, 12])[whole].abs().mean()
    still = (batch["vector"][:, 8] - batch["vector"][:, 12])[whole].abs().mean()
    assert error < 0.6 * still
