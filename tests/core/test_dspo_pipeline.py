import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from safe_policy_core import cli
from safe_policy_core.checkpoint import annotate_checkpoint, load_checkpoint, read_manifest
from safe_policy_core.data.dsrl import DsrlDataset, write_dsrl
from safe_policy_core.data.episodes import EpisodeStore, read_episode, write_episode
from safe_policy_core.data.labels import recording_id
from safe_policy_core.data.scores import Score, read_scores
from safe_policy_core.data.split_safe import SCORING, choose_demonstrations, even, read_split, read_truth, split_safe
from safe_policy_core.errors import CheckpointError, ConfigurationError, DatasetError
from safe_policy_core.evaluation import evaluate
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.diffusion_stage import DiffusionStage
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
from safe_policy_core.methods.dspo.features import FeatureMap
from safe_policy_core.methods.dspo.judgements import ALL
from safe_policy_core.methods.dspo.learner import DspoLearner
from safe_policy_core.methods.dspo.pipeline import DspoRun
from safe_policy_core.methods.dspo.scoring import Memory, score_episodes
from safe_policy_core.methods.dspo.trajectories import CloningSource, Generated, recalled
from safe_policy_core.methods.overrides import override
from safe_policy_core.methods.registry import load_policy
from safe_policy_core.training.offline import save_training
from tests.core.dspo_rig import CONFIG, SPECS, trajectories_of
from tests.core.point_env import PointEnv, ScriptedPolicy, demonstrations, image_episode


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen good episodes of the point environment, and eight that leave it (cost)."""
    folder = tmp_path_factory.mktemp("source")
    episodes = demonstrations(16) + demonstrations(8, ScriptedPolicy(-0.6), first_seed=100)
    for index, episode in enumerate(episodes):
        violation = bool(episode.cost.any())
        episode.metadata |= {"violation": violation, "behavior": "unsafe" if violation else "safe",
                             "layout": {"seed": index}, "limits": {"rate": 20}, "software": {"made": str(violation)},
                             "success": not violation, "seed": index + 1000 * violation}
        write_episode(folder / f"{episode.metadata['behavior']}-{index:02d}.h5", episode)
    return folder


@pytest.fixture(scope="module")
def split(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("split") / "split"
    split_safe((source,), out, demonstrations=5, seed=1)
    return out


def dsrl_file(path: Path) -> DsrlDataset:
    """Ten episodes of six steps: the return is the number of the episode, every third has cost."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(60, 3)).astype(np.float32)
    ends = np.arange(60) % 6 == 5
    episode = np.arange(60) // 6
    dataset = DsrlDataset.from_arrays(
        observations=observations, next_observations=np.roll(observations, -1, 0),
        actions=rng.uniform(-1, 1, (60, 2)).astype(np.float32), rewards=episode / 6, costs=1.0 * (episode % 3 == 0),
        terminals=np.zeros(60, bool), timeouts=ends)
    write_dsrl(path, dataset)
    return dataset


def test_demonstrations_are_safe_and_of_high_return() -> None:
    returns, safe = np.arange(20.0), np.arange(20) % 2 == 0
    chosen = choose_demonstrations(returns, safe, 3, 0.5, np.random.default_rng(0))
    assert len(set(chosen)) == 3
    assert safe[chosen].all()
    assert (returns[chosen] >= 10).all()
    with pytest.raises(DatasetError, match="demonstrations: 10"):
        choose_demonstrations(returns, safe, 10, 0.5, np.random.default_rng(0))


def test_a_split_keeps_every_episode_and_no_cost(source: Path, split: Path) -> None:
    parts, truth = read_split(split), read_truth(split)
    assert (len(parts.safe), len(parts.unlabelled)) == (5, 19)
    assert truth[:5].all()
    assert truth[5:].sum() == 11
    original = {read_episode(path).executed_action.tobytes() for path in source.glob("*.h5")}
    found = set()
    for path in sorted(split.rglob("*.h5")):
        episode = read_episode(path)
        found.add(episode.executed_action.tobytes())
        assert not episode.cost.any()
        assert episode.metadata.keys() == {"specs", "limits"}
        assert not episode.intervention.any()
        assert episode.time_ns.tolist() == list(range(len(episode) + 1))
        assert path.stem.isdigit()
        text = path.read_bytes()
        assert b"unsafe" not in text
        assert b"violation" not in text
        assert b"seed" not in text
    assert found == original


def test_order_tells_nothing(split: Path) -> None:
    """Unsafe episodes were the last of the source; they are spread over the unlabelled part."""
    unsafe = np.flatnonzero(~read_truth(split)[5:])
    assert unsafe.min() < 6
    assert unsafe.max() > 11
    assert len(set(np.diff(unsafe))) > 1


def test_truth_is_in_order(source: Path, split: Path) -> None:
    costly = {read_episode(path).executed_action.tobytes() for path in source.glob("unsafe*.h5")}
    truth = read_truth(split)[5:]
    for path, safe in zip(sorted((split / "unlabelled").glob("*.h5")), truth, strict=True):
        assert (read_episode(path).executed_action.tobytes() in costly) == (not safe)


def test_a_dsrl_file_is_split_too(tmp_path: Path) -> None:
    dataset = dsrl_file(tmp_path / "data.hdf5")
    split_safe((tmp_path / "data.hdf5",), tmp_path / "split", demonstrations=2, seed=0)
    parts = read_split(tmp_path / "split")
    assert isinstance(parts.safe, DsrlDataset)
    assert isinstance(parts.unlabelled, DsrlDataset)
    assert not parts.safe.costs.any()
    assert not parts.unlabelled.costs.any()
    assert sorted([*parts.safe.returns, *parts.unlabelled.returns]) == pytest.approx(sorted(dataset.returns))
    assert (parts.safe.returns >= np.median(dataset.returns)).all()
    with h5py.File(tmp_path / "split" / "unlabelled.hdf5") as file:
        assert not file["costs"][()].any()
    assert read_truth(tmp_path / "split")[2:].tolist() == (parts.unlabelled.returns.round() % 3 != 0).tolist()


def test_even_returns_tell_nothing_of_safety() -> None:
    rng = np.random.default_rng(0)
    returns = rng.uniform(0, 1, 2000)
    safe = rng.uniform(0, 1, 2000) > returns
    kept = even(returns, safe)
    assert np.corrcoef(returns, safe)[0, 1] < -0.5
    assert abs(np.corrcoef(returns[kept], safe[kept])[0, 1]) < 0.05
    assert safe[kept].sum() == len(kept) / 2 > 400
    assert (np.diff(kept) > 0).all()
    # In each tenth the rarer kind is kept whole.
    lowest = returns <= np.quantile(returns, 0.1)
    assert set(np.flatnonzero(lowest & ~safe)) <= set(kept)
    with pytest.raises(DatasetError, match="even_returns: no tenth of the returns has safe and unsafe"):
        even(np.arange(20.0), np.arange(20) >= 10)


def test_a_split_of_even_returns_keeps_its_truth(tmp_path: Path) -> None:
    """80 episodes of two steps: of 20 returns, four have each, of which three are safe."""
    episode, values = np.arange(160) // 2, np.arange(160, dtype=np.float32)[:, None]
    write_dsrl(tmp_path / "data.hdf5", DsrlDataset.from_arrays(
        observations=values, next_observations=values, actions=np.zeros((160, 1)), rewards=episode // 4 / 2,
        costs=1.0 * (episode % 4 == 0), terminals=np.zeros(160), timeouts=np.arange(160) % 2))
    counts = split_safe((tmp_path / "data.hdf5",), tmp_path / "even", demonstrations=5, even_returns=True, seed=1)
    unlabelled, truth = read_split(tmp_path / "even").unlabelled, read_truth(tmp_path / "even")[5:]
    assert isinstance(unlabelled, DsrlDataset)
    assert counts["unlabelled"] == len(unlabelled) == len(truth) == 40
    assert counts["safe_among_unlabelled"] == truth.sum() == 20
    assert (truth == (unlabelled.observations[::2, 0] // 2 % 4 != 0)).all()
    assert abs(np.corrcoef(unlabelled.returns, truth)[0, 1]) < 0.1


def test_the_same_seed_makes_the_same_split(source: Path, split: Path, tmp_path: Path) -> None:
    split_safe((source,), tmp_path / "again", demonstrations=5, seed=1)
    split_safe((source,), tmp_path / "other", demonstrations=5, seed=2)
    scoring = [json.loads((folder / SCORING).read_text())["safe"] for folder in
               (split, tmp_path / "again", tmp_path / "other")]
    assert scoring[0] == scoring[1] != scoring[2]
    with pytest.raises(ConfigurationError, match="exists"):
        split_safe((source,), tmp_path / "again", demonstrations=5)


@pytest.fixture(scope="module")
def blind(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split without its scoring file."""
    folder = tmp_path_factory.mktemp("blind")
    for part in ("safe", "unlabelled"):
        (folder / part).symlink_to(split / part)
    return folder


@pytest.fixture(scope="module")
def whole(blind: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages, which never sees a cost."""
    out = tmp_path_factory.mktemp("whole")
    result = DspoRun(blind, out, CONFIG, progress=False).run()
    assert list(result) == ["discriminator", "label", "diffusion", "generate", "clone"]
    return out


def test_training_never_reads_the_costs(blind: Path, whole: Path) -> None:
    assert load_checkpoint(whole)[1]["step"] == CONFIG.cloning.steps
    with pytest.raises(DatasetError, match=SCORING):
        read_truth(blind)


def test_stage_by_stage_is_the_same_as_all_at_once(blind: Path, whole: Path, tmp_path: Path) -> None:
    """Each stage in a new process's objects, from what the ones before left on disk."""
    for stage in ("discriminator", "label", "diffusion", "generate", "clone"):
        DspoRun(blind, tmp_path, CONFIG, progress=False).run([stage])
    rewards = [evaluate(PointEnv(), load_policy(run), range(2)).reward for run in (whole, tmp_path)]
    assert rewards[0] == rewards[1]
    for name in ("", "discriminator", "diffusion"):
        one, other = (load_checkpoint(run / name)[1]["sha256"] for run in (whole, tmp_path))
        assert one == other


def test_an_interrupted_stage_goes_on_exactly(split: Path, whole: Path, tmp_path: Path) -> None:
    interrupted = DspoRun(split, tmp_path / "parts", CONFIG, progress=False, checkpoint_every=2)
    calls = {"count": 0}
    stage = interrupted._first
    update = stage.update

    def failing(batch: dict[str, np.ndarray]) -> dict[str, float]:
        calls["count"] += 1
        if calls["count"] == 4:
            raise KeyboardInterrupt
        return update(batch)

    stage.update = failing  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(["discriminator"])
    with pytest.raises(CheckpointError, match="resume"):
        DspoRun(split, tmp_path / "parts", CONFIG, resume=False, progress=False).run(["discriminator"])
    DspoRun(split, tmp_path / "parts", CONFIG, progress=False).run(["discriminator"])
    one, other = (load_checkpoint(run / "discriminator")[1] for run in (whole, tmp_path / "parts"))
    assert one["sha256"] == other["sha256"]


def test_stages_refuse_what_is_of_another_run(split: Path, tmp_path: Path) -> None:
    run = DspoRun(split, tmp_path, CONFIG, progress=False)
    run.run(["discriminator"])
    with pytest.raises(DatasetError, match="label first"):
        run.run(["diffusion"])
    run.run(["label"])
    content = json.loads((tmp_path / "signals.json").read_text())
    (tmp_path / "signals.json").write_text(json.dumps(content | {"discriminator": "0" * 64}))
    with pytest.raises(DatasetError, match="another discriminator"):
        run.run(["diffusion"])
    with pytest.raises(DatasetError, match="generate first"):
        run.run(["clone"])


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def changed(*settings: str) -> DspoConfig:
    return override(CONFIG, settings)


def weights_of(run: Path) -> list[str]:
    return [load_checkpoint(run / stage)[1]["sha256"] for stage in ("discriminator", "diffusion")]


def test_what_is_trained_serves_other_settings_of_later_stages(blind: Path, whole: Path, copied: Path) -> None:
    config = changed("diffusion.sampling_steps=10", "diffusion.sampling_eta=1", "diffusion.generated=3",
                     "diffusion.guidance=1", "diffusion.signal_quantile=0", "cloning.units=8")
    with pytest.raises(DatasetError, match=r"guidance: expected 1.0, it was made with 1.2; run the stage generate"):
        DspoRun(blind, copied, config, progress=False).run(["clone"])
    result = DspoRun(blind, copied, config, progress=False).run(["discriminator", "label", "diffusion", "generate"])
    assert result["generate"]["trajectories"] == 3
    assert weights_of(copied) == weights_of(whole)
    shutil.rmtree(copied / "checkpoint")
    DspoRun(blind, copied, config, progress=False).run(["clone"])


@pytest.mark.parametrize(("setting", "stage"), [
    ("discriminator.units=8", "label"), ("discriminator.steps=5", "generate"), ("diffusion.ema=0.9", "generate"),
    ("image_features=3", "label"), ("cloning.units=8", "clone")])
def test_what_a_stage_was_trained_with_is_refused_when_it_differs(setting: str, stage: str, blind: Path, copied: Path
                                                                  ) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(CheckpointError, match=rf"config.{name}: expected"):
        DspoRun(blind, copied, changed(setting), progress=False).run([stage])


@pytest.mark.parametrize("stage", ["discriminator", "label", "diffusion", "generate", "clone"])
def test_stages_refuse_another_seed_and_another_split(stage: str, source: Path, blind: Path, copied: Path,
                                                      tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"seed: "):
        DspoRun(blind, copied, CONFIG, seed=1, progress=False).run([stage])
    split_safe((source,), tmp_path / "other", demonstrations=5, seed=2)
    with pytest.raises(CheckpointError, match=r"data_hash: "):
        DspoRun(tmp_path / "other", copied, CONFIG, progress=False).run([stage])


def test_features_come_from_the_discriminator(blind: Path, copied: Path) -> None:
    """Not from a new fit, whose choice of observations another version may make otherwise."""
    stage = DiscriminatorStage.restored(copied / "discriminator")
    stage.features.high += 1
    checkpoint = copied / "discriminator" / "checkpoint"
    save_training(stage, checkpoint, "", read_manifest(checkpoint)["data_hash"], {})
    before = DspoRun(blind, copied / "new", CONFIG, progress=False).trajectories.states.max()
    assert DspoRun(blind, copied, CONFIG, progress=False).trajectories.states.max() < before


def test_an_unfinished_stage_is_not_gone_on_from(blind: Path, copied: Path) -> None:
    for stage, following in (("diffusion", "generate"), ("discriminator", "label")):
        annotate_checkpoint(copied / stage, step=3)
        with pytest.raises(CheckpointError, match=rf"{stage}.*step: expected 4, the checkpoint has 3"):
            DspoRun(blind, copied, CONFIG, progress=False).run([following])


def test_a_stage_that_is_done_is_not_done_again(blind: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: (copied / name).stat().st_mtime_ns for name in ("signals.json", "generated.hdf5")}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    for kind, name in ((DiscriminatorStage, "judge"), (DiscriminatorStage, "update"), (DiffusionStage, "update"),
                       (DiffusionStage, "generate"), (DspoLearner, "update")):
        monkeypatch.setattr(kind, name, never)
    result = DspoRun(blind, copied, CONFIG, progress=False).run()
    assert result["generate"]["trajectories"] == CONFIG.diffusion.generated
    assert {name: (copied / name).stat().st_mtime_ns for name in kept} == kept


def test_features_of_images_and_vectors() -> None:
    """In [-1, 1] over the data; vectors come back in their units; similar pictures have similar components."""
    store = EpisodeStore()
    for seed in range(3):
        store.add(image_episode(seed=seed))
    features = FeatureMap(store.specs, 4)
    rows = [store.rows_of(index) for index in range(3)]
    observation = {name: np.concatenate([part[name] for part in rows]) for name in ("image", "pose")}
    features.fit(observation, np.random.default_rng(0))
    values = features.array(observation)
    assert values.shape == (18, 10)
    assert np.abs(values).max() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(features.vector_parts(values)["pose"], observation["pose"], atol=1e-4)
    nearly = observation["image"].copy()
    nearly[:, 0, 0, 0] ^= 1
    np.testing.assert_allclose(features.array(observation | {"image": nearly}), values, atol=0.02)


def test_commands(source: Path, tmp_path: Path) -> None:
    settings = ["discriminator.steps=2", "discriminator.units=8", "discriminator.layers=1", "diffusion.steps=2",
                "diffusion.dim=8", "diffusion.multipliers=[1,2]", "diffusion.horizon=8", "diffusion.generated=4",
                "diffusion.diffusion_steps=5", "diffusion.sampling_steps=2", "cloning.steps=2", "cloning.units=8"]
    made = cli.run("dataset", ["split-safe", "--data", str(source), "--out", str(tmp_path / "split"),
                               "--demonstrations", "4"])
    assert (made["safe"], made["unlabelled"], made["safe_among_unlabelled"]) == (4, 20, 12)
    common = ["--data", str(tmp_path / "split"), "--out", str(tmp_path / "run"), "--set", *settings]
    result = cli.run("pretrain", ["dspo", *common])
    assert result["clone"]["steps"] == 2
    quality = cli.run("dspo", ["quality", *common])
    assert 0 <= quality["recall"] <= 1
    with pytest.raises(ConfigurationError, match="steps"):
        cli.run("pretrain", ["dspo", "--data", str(tmp_path / "split"), "--out", str(tmp_path / "new"), "--steps", "5"])
    scored = cli.run("score", [str(tmp_path / "run"), "--data", str(tmp_path / "split" / "unlabelled")])
    assert (scored["episodes"], scored["trained_on"], scored["skipped"]) == (20, 20, [])
    assert scored["worst"][0]["score"] <= scored["worst"][-1]["score"]


def scores_of(folder: Path) -> list[tuple[str, Score]]:
    """In the order of the files."""
    found = read_scores(folder)
    return [(path.name, found[recording_id(read_episode(path))]) for path in sorted(folder.glob("*.h5"))]


def test_what_was_trained_on_is_scored_by_who_has_not_seen_it(source: Path, split: Path, whole: Path, tmp_path: Path
                                                              ) -> None:
    """Also where it has another name: the split renamed it. The scores are the signals of the run itself."""
    data = Path(shutil.copytree(source, tmp_path / "data"))
    scored = score_episodes(whole / "discriminator", data)
    assert (len(scored.scores), scored.known) == (24, 24)
    content = json.loads((whole / "signals.json").read_text())
    truth = json.loads((split / SCORING).read_text())
    order = [index for part in ("safe", "unlabelled") for index in truth[part]["source_index"]]
    expected, once = np.empty(24), np.empty(24, bool)
    expected[order] = content["signals"]
    once[order] = [content["identities"].count(identity) == 1 for identity in content["identities"]]
    assert once.sum() > 10
    # Not read again from the file: some of these episodes have the same actions, by which it knows them.
    found = np.array([score.score for score in scored.scores])
    np.testing.assert_allclose(found[once], expected[once], atol=1e-6)
    # The same made unknown are judged by all discriminators, on the same scale.
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    (other / "signals.json").write_text(json.dumps(content | {"identities": [""] * 24}))
    scored = score_episodes(other / "discriminator", data)
    logits = np.array([np.log(score.score / (1 - score.score)) for score in scored.scores])
    assert scored.known == 0
    assert abs(logits.mean()) < 1
    assert np.abs([score.score for score in scored.scores] - expected)[once].min() > 1e-6


def test_what_was_recorded_twice_was_seen_by_all() -> None:
    memory = Memory.of(["a", "b", "a", "c", "c"], [0, 1, 1, 0, 0], np.zeros((2, 2)))
    assert memory.fold == {"a": ALL, "b": 1, "c": 0}


def test_scores_of_folders_in_folders_and_damaged_files(source: Path, whole: Path, tmp_path: Path) -> None:
    files = sorted(source.glob("*.h5"))
    for place, path in zip(("a", "a/b", "a/b"), files, strict=False):
        (tmp_path / place).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / place)
    (tmp_path / "a" / "damaged.h5").write_bytes(files[0].read_bytes()[:2000])
    write_episode(tmp_path / "a" / "other.h5", image_episode())
    scored = score_episodes(whole / "discriminator", tmp_path / "a")
    assert [len(read_scores(tmp_path / place)) for place in ("a", "a/b")] == [1, 2]
    assert len(scored.skipped) == 2
    assert "damaged.h5" in scored.skipped[0]
    assert "other.h5: other specs" in scored.skipped[1]
    # The MLP has no attention to show.
    assert {score.attention for score in scored.scores} == {()}
    for path in (tmp_path / "a").rglob("*[0-9].h5"):
        path.unlink()
    with pytest.raises(DatasetError, match=r"none of 2 files can be scored: .*damaged.h5"):
        score_episodes(whole / "discriminator", tmp_path / "a")


def test_scoring_needs_to_know_what_was_seen(source: Path, copied: Path) -> None:
    content = json.loads((copied / "signals.json").read_text())
    (copied / "signals.json").write_text(json.dumps(content | {"discriminator": ""}))
    with pytest.raises(DatasetError, match="another discriminator"):
        score_episodes(copied / "discriminator", source)
    (copied / "signals.json").unlink()
    with pytest.raises(DatasetError, match=r"signals.json: .*run `safe-policy dspo label` first"):
        score_episodes(copied / "discriminator", source)


def test_the_transformer_writes_attention(blind: Path, source: Path, tmp_path: Path) -> None:
    config = changed("discriminator.network=transformer", "discriminator.length=4", "diffusion.generated=0")
    DspoRun(blind, tmp_path / "run", config, progress=False).run(["discriminator", "label"])
    data = Path(shutil.copytree(source, tmp_path / "data"))
    score_episodes(tmp_path / "run" / "discriminator", data)
    for name, score in scores_of(data):
        assert len(score.attention) == len(read_episode(data / name))
        assert sum(score.attention) == pytest.approx(1, abs=1e-4)


def test_what_is_recalled_by_hand() -> None:
    """From the median of the demonstrations' signals on, 0.6, or from their highest, 0.8."""
    data = trajectories_of([np.zeros((1, 2))] * 6, [np.zeros((1, 1))] * 6, np.arange(6.0), safe=2)
    signals = np.array([0.4, 0.8, 0.61, 0.9, 0.7, 0.59])
    assert recalled(data, signals, 0.5).tolist() == [False, False, True, True, True, False]
    assert recalled(data, signals, 1.0).tolist() == [False, False, False, True, False, False]


def test_recalled_trajectories_are_cloned(split: Path, tmp_path: Path) -> None:
    found = {}
    for quantile in (None, 0.0):
        config = dataclasses.replace(CONFIG, cloning=dataclasses.replace(CONFIG.cloning, recalled=quantile))
        run = DspoRun(split, tmp_path / str(quantile), config, seed=0, progress=False)
        result = run.run()["clone"]
        expected = 0 if quantile is None else int(recalled(run.trajectories, run.signals(), quantile).sum())
        assert result["recalled"] == expected
        found[quantile] = expected, load_checkpoint(tmp_path / str(quantile))[0]
    assert found[0.0][0] > 0
    # The stages before are the same, so that only what is cloned can make a difference.
    assert any(not torch.equal(value, found[0.0][1][name]) for name, value in found[None][1].items())


def test_a_clone_that_is_told_returns_acts_by_what_it_is_asked_for(tmp_path: Path) -> None:
    """All states are alike, actions are the return: only the return can tell. The demonstrations' median is 0.7."""
    returns = np.array([0.6, 0.7, 0.8, 0.0, 0.2, 1.0, 0.4])
    data = trajectories_of([np.zeros((4, 2))] * 7, [np.full((4, 1), value) for value in returns], returns, safe=3)
    generated = Generated(np.zeros((2, 3, 2), np.float32), np.full((2, 3, 1), 0.1, np.float32),
                          np.array([[True, True, False], [True, False, False]]), np.full((2, 2), 0.1, np.float32))
    source = CloningSource(data, np.ones(7, bool), generated)
    assert len(source) == 4 * 7 + 3
    batch = source.sample(64, 1, np.random.default_rng(0))
    np.testing.assert_allclose(batch["returns"], batch["actions"][:, 0], atol=1e-6)
    config = override(CONFIG, ("cloning.told_return=true", "cloning.steps=300", "cloning.learning_rate=0.01"))
    learner = DspoLearner(SPECS, config)
    learner.features.fit({"vector": np.array([[-1, -1], [1, 1]], np.float32)}, np.random.default_rng(0))
    learner.fit(data)
    for step in range(300):
        learner.update(source.sample(64, 1, np.random.default_rng(step)))
    learner.save(tmp_path / "checkpoint")
    action = load_policy(tmp_path).act({"vector": np.zeros(2, np.float32)}).action
    assert float(action[0]) == pytest.approx(0.7, abs=0.05)


def test_nothing_generated_trains_no_diffusion(split: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, diffusion=dataclasses.replace(CONFIG.diffusion, generated=0))
    run = DspoRun(split, tmp_path, config, progress=False)
    assert list(run.run()) == ["discriminator", "label", "clone"]
    assert not (tmp_path / "diffusion").exists()
    # The demonstrations alone are cloned.
    steps = int(run.trajectories.lengths[run.trajectories.safe].sum())
    assert len(CloningSource(run.trajectories, run.trajectories.safe, run.generated())) == steps


@pytest.mark.parametrize(("setting", "named"), [
    ("cloning.recalled=1.5", r"cloning.recalled: expected .*, got 1.5"),
    ("diffusion.generated=-1", r"diffusion.generated: expected a count, got -1"),
    ("diffusion.diffusion_steps=2", r"diffusion.sampling_steps: expected 1 to diffusion.diffusion_steps, 2, got 3"),
    ("diffusion.sampling_steps=0", r"diffusion.sampling_steps: expected 1 to .*, got 0"),
    ("diffusion.sampling_eta=2", r"diffusion.sampling_eta: expected a number from 0 to 1, got 2.0"),
    ("diffusion.signal_quantile=-1", r"diffusion.signal_quantile: expected .*, got -1.0"),
    ("diffusion.horizon=9", r"diffusion.horizon: expected a multiple of 2, .*, got 9")])
def test_a_wrong_setting_is_named_before_anything_is_trained(setting: str, named: str, split: Path, tmp_path: Path
                                                             ) -> None:
    with pytest.raises(ConfigurationError, match=named):
        DspoRun(split, tmp_path, override(CONFIG, (setting,)), progress=False).run()
    assert not list(tmp_path.iterdir())
