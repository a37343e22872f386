import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as functional

from safe_policy_core.errors import DatasetError
from safe_policy_core.methods.dspo.config import DiscriminatorConfig
from safe_policy_core.methods.dspo.discriminator import MlpDiscriminator, PreferenceAttention, SafetyTransformer
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage, discriminator_loss
from safe_policy_core.methods.dspo.inputs import ChangeInputs
from safe_policy_core.methods.dspo.judgements import ALL, Judgements
from safe_policy_core.methods.dspo.return_agnostic import ReturnClassifier, likelihood_loss, vclub
from safe_policy_core.methods.dspo.scoring import discriminator_quality
from safe_policy_core.methods.dspo.trajectories import DiscriminatorSource
from safe_policy_core.networks.optimiser import Optimiser
from tests.core.dspo_rig import CONFIG, SPECS, corridors, lines, trajectories_of

SETTINGS = CONFIG.discriminator


def learn_classifier(logit: torch.Tensor, returns: torch.Tensor, steps: int = 150
                     ) -> tuple[ReturnClassifier, list[float]]:
    torch.manual_seed(0)
    classifier = ReturnClassifier(10, 32)
    classifier.fit_range(0.0, 1.0)
    optimiser, losses = Optimiser(classifier, 1e-2, 10.0), []
    for _ in range(steps):
        loss = likelihood_loss(classifier(logit), classifier.classes(returns))
        optimiser.step(loss)
        losses.append(float(loss.detach()))
    return classifier, losses


def test_discriminator_loss_by_hand() -> None:
    """Eq. 1 with z = 0.5 for a demonstration, and z = 0.5 and 0.8 for unlabelled trajectories."""
    logit = torch.tensor([0.0, 0.0, math.log(4.0)])
    loss = discriminator_loss(logit, torch.tensor([True, False, False]))
    assert float(loss) == pytest.approx(-math.log(0.5) - (math.log(0.5) + math.log(0.2)) / 2)


def test_vclub_by_hand() -> None:
    """Eq. 4: pairs on the diagonal, minus all B x B of them."""
    log_q = torch.log(torch.tensor([[0.8, 0.2], [0.4, 0.6]]))
    bound = vclub(log_q, torch.tensor([0, 1]))
    paired = (math.log(0.8) + math.log(0.6)) / 2
    crossed = (math.log(0.8) + math.log(0.2) + math.log(0.4) + math.log(0.6)) / 4
    assert float(bound) == pytest.approx(paired - crossed)


def test_return_bins() -> None:
    classifier = ReturnClassifier(10, 4)
    classifier.fit_range(-1.0, 1.0)
    values = torch.tensor([-5.0, -1.0, -0.81, -0.79, 0.0, 0.99, 1.0, 7.0])
    assert classifier.classes(values).tolist() == [0, 0, 0, 1, 5, 9, 9, 9]
    classifier.fit_range(2.0, 2.0)  # returns that never vary
    assert classifier.classes(torch.tensor([2.0])).tolist() == [0]


def test_the_classifier_learns_and_vclub_tells_dependence() -> None:
    """Near zero for independent returns, clearly positive for dependent ones, which q learns to predict."""
    torch.manual_seed(1)
    logit, fresh = torch.randn(2, 600)
    bounds = {}
    for name, of in (("independent", torch.rand_like), ("dependent", lambda signal: torch.sigmoid(2 * signal))):
        classifier, losses = learn_classifier(logit, of(logit))
        with torch.no_grad():
            bounds[name] = float(vclub(classifier(fresh), classifier.classes(of(fresh))))
        if name == "dependent":
            assert losses[-1] < 0.6 * losses[0]
    assert abs(bounds["independent"]) < 0.15
    assert bounds["dependent"] > 1.0


def test_pairs_matter_to_the_classifier() -> None:
    """The likelihood is of paired data: with the pairing destroyed (the slip after eq. 5) nothing is learned."""
    torch.manual_seed(1)
    logit = torch.randn(600)
    returns = torch.sigmoid(2 * logit)
    _, paired = learn_classifier(logit, returns)
    _, shuffled = learn_classifier(logit, returns[torch.randperm(600)])
    assert paired[-1] < shuffled[-1] - 0.5


def test_minimising_vclub_makes_signals_independent() -> None:
    """A projection of (return, other), trained by eq. 4 alone against its q, turns away from the return."""
    torch.manual_seed(0)
    returns, other = torch.rand(512), torch.randn(512)
    classifier = ReturnClassifier(10, 32)
    classifier.fit_range(0.0, 1.0)
    direction = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        direction.weight.copy_(torch.tensor([[2.0, 1.0]]))
    inputs = torch.stack([(returns - 0.5) * 12**0.5, other], 1)

    def signal() -> torch.Tensor:
        return inputs @ functional.normalize(direction.weight[0], dim=0)

    optimisers = Optimiser(classifier, 1e-2, 10.0), Optimiser(direction, 3e-2, 10.0)
    for _ in range(150):
        for _ in range(2):
            optimisers[0].step(likelihood_loss(classifier(signal().detach()), classifier.classes(returns)))
        optimisers[1].step(vclub(classifier(signal()), classifier.classes(returns)))
    share = direction.weight.detach().abs()[0]
    assert share[0] < 0.3 * share[1]


def test_preference_attention_by_hand() -> None:
    """Section 3.1 with T = 2 valid steps and one of padding, whose value must not count."""
    layer = PreferenceAttention(1, 1)
    with torch.no_grad():
        for linear, weight in ((layer.query, 1.0), (layer.key, 2.0), (layer.value, 3.0)):
            linear.weight.fill_(weight)
            linear.bias.zero_()
        judgement = layer(torch.tensor([[[1.0], [-1.0], [50.0]]]), torch.tensor([[True, True, False]]))
    first = 1 / (1 + math.exp(-4))  # softmax of (2, -2) for q = 1; of (-2, 2) for q = -1
    z = [3 * (first - (1 - first)), 3 * ((1 - first) - first)]
    assert float(judgement.logit[0]) == pytest.approx(sum(z) / 2, abs=1e-5)
    assert judgement.attention[0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize("kind", [SafetyTransformer, MlpDiscriminator])
def test_padding_and_batch_do_not_matter(kind: type) -> None:
    torch.manual_seed(0)
    network = kind(2, 1, SETTINGS).eval()
    states, actions, mask = torch.randn(3, 8, 2), torch.randn(3, 8, 1), torch.ones(3, 8, dtype=torch.bool)
    mask[1, 5:] = False
    with torch.no_grad():
        whole = network(states, actions, mask)
        alone = network(states[1:2, :5], actions[1:2, :5], mask[1:2, :5])
        states[1, 5:] = 99.0
        changed = network(states, actions, mask)
    torch.testing.assert_close(whole.logit[1:2], alone.logit, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.logit, changed.logit, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.attention.sum(1), torch.ones(3))
    assert (whole.attention[1, 5:] == 0).all()


def test_the_transformer_sees_order_and_the_mlp_does_not() -> None:
    """What Figure 4 is about: the same steps in another order are another trajectory."""
    torch.manual_seed(0)
    states, actions, mask = torch.randn(4, 8, 2), torch.randn(4, 8, 1), torch.ones(4, 8, dtype=torch.bool)
    for kind, sees in ((SafetyTransformer, True), (MlpDiscriminator, False)):
        network = kind(2, 1, SETTINGS).eval()
        with torch.no_grad():
            difference = network(states, actions, mask).logit - network(states.flip(1), actions.flip(1), mask).logit
        assert (difference.abs().max() > 1e-6).item() == sees
    sizes = [sum(parameter.numel() for parameter in kind(2, 1, DiscriminatorConfig(units=64, layers=3)).parameters())
             for kind in (SafetyTransformer, MlpDiscriminator)]
    assert 0.7 < sizes[0] / sizes[1] < 1.4


def judged(settings: DiscriminatorConfig, steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(E,) signals and truths of trajectories of which the first ten are the demonstrations."""
    trajectories, truth = corridors(80, safe=10, seed=seed)
    stage = DiscriminatorStage(SPECS, dataclasses.replace(CONFIG, discriminator=settings), seed)
    stage.fit(trajectories)
    source = stage.source(trajectories)
    for step in range(steps):
        torch.manual_seed(step)
        stage.update(source.sample(32, 8, np.random.default_rng((seed, step))))
    signals = np.array([signal for signal, _ in stage.judge(trajectories)])
    return signals, truth


def test_safe_trajectories_of_low_return_are_recalled() -> None:
    """Figure 3: demonstrations of high return. With neither the term nor rivals, the safe and poor are not recalled."""
    plain = DiscriminatorConfig(network="mlp", inputs="states", opposite="all", folds=1, layers=1, units=16, length=8,
                                dropout=0.0, learning_rate=1e-3, return_weight=0.0,
                                classifier_learning_rate=1e-2, classifier_steps=3)
    agnostic, rivals = (dataclasses.replace(plain, return_weight=0.2), dataclasses.replace(plain, opposite="rivals"))
    found = []
    for settings in (plain, agnostic, rivals):
        qualities = []
        for seed in range(5):
            signals, truth = judged(settings, 150, seed)
            quality = discriminator_quality(signals[10:], truth[10:], signals[:10].min())
            qualities.append((quality.recall, quality.pearson))
        found.append(np.mean(qualities, 0))
    assert (found[1] > found[0] + 0.1).all()
    assert (found[2] > found[0] + 0.1).all()


def test_gradient_penalty_flattens_the_discriminator() -> None:
    trajectories, _ = corridors(40, safe=10)
    steepness = []
    for weight in (0.0, 10.0):
        settings = dataclasses.replace(SETTINGS, inputs="states", learning_rate=3e-3, return_weight=0.0,
                                       gradient_penalty=weight)
        stage = DiscriminatorStage(SPECS, dataclasses.replace(CONFIG, discriminator=settings))
        for step in range(40):
            torch.manual_seed(step)
            metrics = stage.update(stage.source(trajectories).sample(16, 8, np.random.default_rng(step)))
        assert ("gradient_penalty" in metrics) == (weight > 0)
        steepness.append(np.std([signal for signal, _ in stage.judge(trajectories)]))
    assert steepness[1] < steepness[0]


def test_long_trajectories_are_judged_in_pieces() -> None:
    """The logit of a long trajectory is the mean over its pieces, by their lengths; attention sums to 1."""
    settings = dataclasses.replace(SETTINGS, inputs="states", folds=1, length=6)
    stage = DiscriminatorStage(SPECS, dataclasses.replace(CONFIG, discriminator=settings))
    trajectories = lines(2, safe=1)  # 6 and 8 steps
    (_, short), (signal, attention) = stage.judge(trajectories)
    assert len(short) == 6
    assert attention.sum() == pytest.approx(1, abs=1e-5)
    network, logits = stage.networks["discriminator"][0].eval(), []
    for first, last in ((6, 12), (12, 14)):
        states, actions = (torch.as_tensor(rows[None, first:last]) for rows in
                           (trajectories.states, trajectories.actions))
        with torch.no_grad():
            logits.append(float(network(states, actions, torch.ones(1, last - first, dtype=torch.bool)).logit))
    assert signal == pytest.approx(1 / (1 + math.exp(-(6 * logits[0] + 2 * logits[1]) / 8)), abs=1e-5)


def test_attention_of_pieces_by_hand() -> None:
    """Two pieces of two steps and one of one, two discriminators; a piece counts by steps times 1 - z."""
    logits = np.array([[0.0, 2.0], [math.log(3), 2.0], [0.0, 2.0]])
    within = np.array([[0.5, 0.9], [0.5, 0.1], [0.25, 0.5], [0.75, 0.5], [1.0, 1.0]], np.float32)
    judgements = Judgements(logits, within, np.array([0, 0, 0]), np.array([0, 0, 1, 1, 2]), np.array([0, 5]))
    ((signal, first),) = judgements.told(np.array([0]))
    assert signal == pytest.approx(1 / (1 + math.exp(-0.4 * math.log(3))))
    assert first == pytest.approx([0.25, 0.25, 0.0625, 0.1875, 0.25])  # pieces 2 * 1/2, 2 * 1/4, 1 * 1/2
    ((_, second),) = judgements.told(np.array([1]))
    assert second == pytest.approx([0.36, 0.04, 0.2, 0.2, 0.2])  # all pieces are alike to it
    ((signal, both),) = judgements.told(np.array([ALL]), np.array([[0.0, 1.0], [1.0, 0.5]]))
    assert both == pytest.approx((first + second) / 2)
    assert signal == pytest.approx(1 / (1 + math.exp(-(0.4 * math.log(3) + 2) / 2)))


def test_attention_finds_the_unsafe_part() -> None:
    """Trajectories of 30 steps, seen ten at a time; what is unsafe happens in steps 12 to 17 of them."""
    rng, states = np.random.default_rng(0), []
    for index in range(40):
        states.append(0.05 * rng.normal(size=(30, 2)))
        states[-1][12:18, 1] += 0.8 * (index >= 20)
    data = trajectories_of(states, [np.zeros((30, 1))] * 40, rng.uniform(0, 1, 40), safe=12)
    settings = dataclasses.replace(SETTINGS, network="transformer", length=10, learning_rate=3e-3, return_weight=0.0,
                                   inputs="states", opposite="all")
    stage = DiscriminatorStage(SPECS, dataclasses.replace(CONFIG, discriminator=settings))
    stage.fit(data)
    for step in range(60):
        torch.manual_seed(step)
        stage.update(stage.source(data).sample(32, 10, np.random.default_rng(step)))
    attention = np.array([weights for _, weights in stage.judge(data, held_out=True)])
    pieces = attention.reshape(40, 3, 10).sum(2)
    np.testing.assert_allclose(attention.sum(1), 1, atol=1e-5)
    assert (pieces[20:, 1] > 1.5 * pieces[20:, [0, 2]].max(1)).all()
    assert np.ptp(pieces[:20].mean(0)) < 0.1


def test_batches_are_balanced_and_fixed_by_the_seed() -> None:
    source = DiscriminatorSource(lines(20, safe=3))
    batch, again = (source.sample(10, 4, np.random.default_rng(5)) for _ in range(2))
    assert batch["safe"].tolist() == [True] * 5 + [False] * 5
    for name, value in batch.items():
        np.testing.assert_array_equal(value, again[name])


def test_rivals_earned_at_least_as_much_as_a_demonstration() -> None:
    """Demonstrations of 0.3 and 0.6: half of the draws are of four rivals, half of two of them; the last has none."""
    returns = np.array([0.3, 0.6, 0.9, 0.1, 0.7, 0.3, 0.5, 0.8])
    data = trajectories_of([np.full((4, 2), value) for value in returns], [np.zeros((4, 1))] * 8, returns, safe=3)
    batch = DiscriminatorSource(data, rivals=True).sample(40_000, 4, np.random.default_rng(0))
    drawn = batch["returns"][~batch["safe"]]
    share = {value: float((drawn == value).mean()) for value in (0.1, 0.3, 0.5, 0.7, 0.8)}
    assert share == pytest.approx({0.1: 0, 0.3: 1 / 8, 0.5: 1 / 8, 0.7: 3 / 8, 0.8: 3 / 8}, abs=0.02)
    assert set(batch["returns"][batch["safe"]]) == {0.3, 0.6, 0.9}


def test_without_any_rival_all_unlabelled_are_drawn() -> None:
    returns = np.array([0.9, 0.8, 0.1, 0.2])
    data = trajectories_of([np.zeros((4, 2))] * 4, [np.zeros((4, 1))] * 4, returns, safe=2)
    batch = DiscriminatorSource(data, rivals=True).sample(200, 4, np.random.default_rng(0))
    assert set(batch["returns"][~batch["safe"]]) == {0.1, 0.2}


def test_quality_by_hand() -> None:
    signals, truth = np.array([0.9, 0.4, 0.8, 0.1]), np.array([True, True, False, False])
    quality = discriminator_quality(signals, truth)
    assert (quality.recall, quality.accuracy, quality.f1) == (0.5, 0.5, 0.5)
    assert quality.pearson == pytest.approx(np.corrcoef([0.9, 0.4, 0.8, 0.1], [1, 1, 0, 0])[0, 1])
    assert discriminator_quality(signals, truth, 0.3).recall == 1.0
    nothing = discriminator_quality(np.full(3, 0.2), np.array([True, False, True]))
    assert (nothing.recall, nothing.f1, nothing.pearson) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="signals"):
        discriminator_quality(np.zeros(2), np.zeros(3, bool))


def test_same_seed_same_numbers() -> None:
    runs = [judged(dataclasses.replace(SETTINGS, dropout=0.1), 3)[0] for _ in range(2)]
    np.testing.assert_array_equal(runs[0], runs[1])


def test_changes_do_not_tell_the_scene() -> None:
    """Moving a whole trajectory elsewhere changes nothing; what moves in few trajectories is not small."""
    still, inputs = lines(20, safe=3), ChangeInputs(2)
    states = still.states.copy()
    states[still.starts[5] + 2:still.starts[6], 1] += 0.3  # something is pushed in one of them
    pushed = dataclasses.replace(still, states=states)
    inputs.fit(pushed)
    offset = np.repeat(np.random.default_rng(0).uniform(-1, 1, (20, 2)), still.lengths, 0).astype(np.float32)
    elsewhere = dataclasses.replace(pushed, states=states + offset)
    np.testing.assert_allclose(inputs(elsewhere).states, inputs(pushed).states, atol=1e-4)
    assert inputs(pushed).states[still.starts[5] + 3, 1] > 2
    assert (inputs(pushed).states[still.starts[:-1]] == 0).all()


def test_a_discriminator_never_sees_the_fold_that_it_judges() -> None:
    trajectories = lines(12, safe=4)
    fold = trajectories.folds(2)
    assert [np.bincount(fold[part]).tolist() for part in (trajectories.safe, ~trajectories.safe)] == [[2, 2], [4, 4]]
    stage = DiscriminatorStage(SPECS, CONFIG)
    stage.fit(trajectories)
    source = stage.source(trajectories)
    batches = [source.sample(32, 8, np.random.default_rng(0)) for _ in range(2)]
    # The same batch with other contents in fold 0: the discriminator of fold 0 must not notice.
    batches[1]["states"] = np.where((batches[1]["fold"] == 0)[:, None, None], 9, batches[1]["states"])
    weights, signals = [], []
    for batch in batches:
        stage = DiscriminatorStage(SPECS, CONFIG)
        stage.fit(trajectories)
        stage.update(batch)
        weights.append([member.state_dict() for member in stage.networks["discriminator"]])
        signals.append(np.array([signal for signal, _ in stage.judge(trajectories, held_out=True)]))
    same = [all(torch.equal(value, second[name]) for name, value in first.items())
            for first, second in zip(*weights, strict=True)]
    assert same == [True, False]
    others = np.log(signals[0] / (1 - signals[0]))[~trajectories.safe]
    for number in (0, 1):  # each has its own zero and unit
        own = others[fold[~trajectories.safe] == number]
        assert (own.mean(), own.std()) == pytest.approx((0, 1), abs=1e-4)
    np.testing.assert_array_equal(signals[0][fold == 0], signals[1][fold == 0])
    with pytest.raises(DatasetError, match="2 folds need at least 2 safe"):
        stage.fit(lines(6, safe=1))
