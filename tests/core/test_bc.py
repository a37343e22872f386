import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from safe_policy_core.checkpoint import annotate_checkpoint
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError, SpecError
from safe_policy_core.evaluation import evaluate
from safe_policy_core.interfaces import Learner, Policy, Spec, Specs
from safe_policy_core.methods.bc import BcConfig, BcLearner
from safe_policy_core.methods.bc.model import shift_images
from safe_policy_core.methods.overrides import override, preset
from safe_policy_core.methods.registry import load_learner, load_policy, make_learner
from safe_policy_core.training.offline import train_offline
from tests.core.point_env import FAST, SPECS, PointEnv, ScriptedPolicy, demonstrations

CONFIG = BcConfig(units=32, layers=1)
IMAGE_SPECS = Specs({"image": Spec("observation/image", (16, 16, 3), "uint8", 0, 255),
                     "pose": Spec("observation/pose", (6,))}, Spec("action", (6,), low=-1.0, high=1.0))
SMALL = BcConfig(depth=4, units=16, layers=1)


def image_batch(rows: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    has_next = np.ones((rows, 1), bool)
    has_next[-1] = False
    return {"image": rng.integers(0, 256, (rows, 1, 16, 16, 3), dtype=np.uint8),
            "pose": rng.normal(size=(rows, 1, 6)).astype(np.float32),
            "next_action": rng.uniform(-1, 1, (rows, 1, 6)).astype(np.float32), "has_next_action": has_next}


def store_of(*groups: list) -> EpisodeStore:
    store = EpisodeStore()
    for episodes in groups:
        for episode in episodes:
            store.add(episode)
    return store


def test_loss_by_hand() -> None:
    """Squared error, and negative Gaussian log-likelihood, of the rows that have a next action."""
    for loss in ("squared", "likelihood"):
        learner = BcLearner(IMAGE_SPECS, dataclasses.replace(SMALL, loss=loss))
        batch = image_batch()
        observation = {name: torch.as_tensor(batch[name][:5, 0]) for name in ("image", "pose")}
        target = torch.as_tensor(batch["next_action"][:5, 0])
        learner.model.encoder.update_statistics(observation)
        with torch.no_grad():
            distribution = learner.model(observation)
            squared = ((distribution.mean - target)**2).sum(-1).mean().item()
            normal = torch.distributions.Normal(distribution.mean, distribution.deviation)
            likelihood = -normal.log_prob(target).sum(-1).mean().item()
        learner = BcLearner(IMAGE_SPECS, dataclasses.replace(SMALL, loss=loss))
        metrics = learner.update(batch)
        assert metrics["squared_error"] == pytest.approx(squared, rel=1e-4)
        assert metrics["loss"] == pytest.approx(squared if loss == "squared" else likelihood, rel=1e-4)


def test_the_last_observation_of_an_episode_teaches_nothing() -> None:
    batch, other = image_batch(), image_batch()
    other["next_action"][-1] = 0.9
    other["image"][-1] = 0
    learners = [BcLearner(IMAGE_SPECS, SMALL), BcLearner(IMAGE_SPECS, SMALL)]
    assert learners[0].update(batch) == learners[1].update(other)


def test_batches_that_lack_something_are_refused() -> None:
    learner = BcLearner(IMAGE_SPECS, SMALL)
    with pytest.raises(DatasetError, match="pose: missing"):
        learner.update({name: value for name, value in image_batch().items() if name != "pose"})
    with pytest.raises(DatasetError, match="has_next_action"):
        learner.update(image_batch() | {"has_next_action": np.zeros((6, 1), bool)})


def test_it_learns_to_reach_the_goal() -> None:
    learner = BcLearner(SPECS, CONFIG, seed=0)
    before = evaluate(PointEnv(), learner.policy(), range(500, 510)).success_rate
    metrics = train_offline(learner, store_of(demonstrations(20)), 250, 32, 1, 0, progress=False)
    after = evaluate(PointEnv(), learner.policy(), range(500, 510))
    assert before < 0.5
    assert after.success_rate == 1.0
    assert after.violation_rate == 0.0
    assert metrics["squared_error"] < 0.02


def test_safe_selection_ignores_what_the_unsafe_do() -> None:
    """With twice as many demonstrations that run away into cost, BC-All is spoilt and BC-Safe is not."""
    data = store_of(demonstrations(8), demonstrations(16, ScriptedPolicy(speed=-FAST), first_seed=100))
    safe = BcLearner(SPECS, CONFIG)
    everything = BcLearner(SPECS, dataclasses.replace(CONFIG, selection="all", only_successful=False))
    for learner in (safe, everything):
        train_offline(learner, data, 150, 32, 1, 0, progress=False)
    assert evaluate(PointEnv(), safe.policy(), range(500, 505)).success_rate == 1.0
    assert evaluate(PointEnv(), everything.policy(), range(500, 505)).success_rate < 0.5


@pytest.mark.parametrize(("selection", "only_successful", "kept"), [
    ("safe", True, 2), ("safe", False, 3), ("all", True, 2), ("all", False, 4)])
def test_selection(selection: str, only_successful: bool, kept: int) -> None:
    # Two that reach safely, one that stands still (safe, no reach), one that runs into cost.
    data = store_of(demonstrations(2), demonstrations(1, ScriptedPolicy(speed=0.0)),
                    demonstrations(1, ScriptedPolicy(speed=-0.5)))
    learner = BcLearner(SPECS, dataclasses.replace(CONFIG, selection=selection, only_successful=only_successful))
    assert len(data.select(learner.select_episode)) == kept


def test_checkpoints_continue_exactly(tmp_path: Path) -> None:
    learner = BcLearner(IMAGE_SPECS, dataclasses.replace(SMALL, shift=1), seed=5)
    for _ in range(3):
        learner.update(image_batch())
    learner.save(tmp_path / "c")
    restored = load_learner(tmp_path / "c")
    assert isinstance(restored, Learner)
    for _ in range(3):
        assert learner.update(image_batch()) == restored.update(image_batch())


def test_same_seed_same_weights() -> None:
    torch.manual_seed(1)
    one = BcLearner(SPECS, CONFIG, seed=4)
    torch.manual_seed(2)
    other = BcLearner(SPECS, CONFIG, seed=4)
    third = BcLearner(SPECS, CONFIG, seed=5)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(one.model.parameters(), third.model.parameters(), strict=True))


def test_policy_of_a_checkpoint(tmp_path: Path) -> None:
    learner = make_learner("bc", SPECS, dataclasses.replace(CONFIG, loss="likelihood"), seed=1)
    learner.save(tmp_path / "c")
    policy = load_policy(tmp_path / "c")
    assert isinstance(policy, Policy)
    observation = {"vector": np.array([0.1, 0.4], np.float32)}
    np.testing.assert_array_equal(policy.act(observation, True).action, learner.policy().act(observation, True).action)
    draws = []
    for seed in (1, 1, 2):
        policy.reset(seed)
        draws.append(policy.act(observation).action)
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    SPECS.action.validate(draws[0])
    with pytest.raises(SpecError, match="vector"):
        policy.act({"vector": np.zeros(3, np.float32)})


def test_checkpoints_of_something_else_are_refused(tmp_path: Path) -> None:
    BcLearner(SPECS, CONFIG).save(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"config\.units: expected 64, the checkpoint has 32"):
        BcLearner(SPECS, dataclasses.replace(CONFIG, units=64)).load(tmp_path / "c")
    with pytest.raises(CheckpointError, match="specs"):
        BcLearner(IMAGE_SPECS, CONFIG).load(tmp_path / "c")
    annotate_checkpoint(tmp_path / "c", method="telepathy")
    with pytest.raises(CheckpointError, match="telepathy"):
        load_policy(tmp_path / "c")


def test_shifted_images_are_the_same_pictures_moved() -> None:
    image = torch.arange(5 * 5 * 3, dtype=torch.uint8).view(1, 5, 5, 3).expand(64, 5, 5, 3)
    shifted = shift_images(image, 1, torch.Generator().manual_seed(0))
    assert shifted.dtype == torch.uint8
    assert shifted.shape == image.shape
    # The middle pixel is now one of the nine around it, and every move occurs.
    around = {tuple(image[0, row, column].tolist()) for row in (1, 2, 3) for column in (1, 2, 3)}
    assert {tuple(pixel.tolist()) for pixel in shifted[:, 2, 2]} == around


# Settings from the command line


def test_settings_are_overridden() -> None:
    config = override(preset("bc", "small"), ["units=64", "learning_rate=1e-4", "only_successful=false",
                                              "loss=likelihood"])
    assert (config.units, config.learning_rate, config.only_successful, config.loss) == (64, 1e-4, False, "likelihood")
    nested = override(preset("fosp", "small"), ["world_model.depth=8", "largest_return=none", "discount=1"])
    assert (nested.world_model.depth, nested.largest_return, nested.discount) == (8, None, 1.0)
    assert override(nested, ["largest_return=2.5"]).largest_return == 2.5


@pytest.mark.parametrize(("setting", "message"), [
    ("units", "name=value"), ("untis=3", "untis.*units"), ("units=3.5", "units: expected int, got '3.5'"),
    ("units=many", "units: expected int"), ("only_successful=1", "only_successful: expected bool"),
    ("loss=absolute", "loss: expected one of squared, likelihood"), ("units.more=1", "units has no settings"),
    ("learning_rate=true", "learning_rate: expected float")])
def test_wrong_settings_are_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        override(BcConfig(), [setting])


def test_unknown_methods_and_presets_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"telepathy.*bc.*fosp"):
        preset("telepathy", "small")
    with pytest.raises(ConfigurationError, match=r"huge.*all.*small"):
        preset("bc", "huge")
