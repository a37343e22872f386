import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safe_policy_core.data.episode_file import read_fields, read_pictures
from safe_policy_core.data.episodes import Episode, EpisodeStore, content_hash, read_episode, write_episode
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Spec, Specs
from tests.core.point_env import image_episode

FIELDS = ["executed_action", "policy_action", "human_action", "intervention", "reward", "cost", "terminated",
          "truncated", "time_ns"]


def assert_same(one: Episode, other: Episode) -> None:
    assert one.observations.keys() == other.observations.keys()
    for name, value in one.observations.items():
        np.testing.assert_array_equal(value, other.observations[name])
        assert value.dtype == other.observations[name].dtype
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.filter_reason == other.filter_reason
    assert one.metadata == other.metadata


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    episode = image_episode(draw(st.integers(1, 40)), draw(st.integers(0, 2**32)))
    text = st.text(st.characters(categories=("L", "N", "P", "S")), max_size=12)
    json_value = st.one_of(st.none(), st.booleans(), st.integers(-2**53, 2**53), st.text(max_size=12),
                           st.floats(allow_nan=False, allow_infinity=False))
    number = st.floats(0, 1e6, width=32)
    episode.cost = np.array(draw(st.lists(number, min_size=len(episode), max_size=len(episode))), np.float32)
    episode.filter_reason = draw(st.lists(text, min_size=len(episode), max_size=len(episode)))
    episode.metadata |= {"extra": draw(st.dictionaries(text, st.one_of(json_value, st.lists(json_value)), max_size=4))}
    return episode


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(episode=episodes())
def test_what_was_written_is_read(tmp_path: Path, episode: Episode) -> None:
    path = tmp_path / "episode.h5"
    digest = write_episode(path, episode)
    read = read_episode(path)
    assert_same(read, episode)
    assert digest == content_hash(episode) == content_hash(read)
    assert [item.name for item in tmp_path.iterdir()] == ["episode.h5"]


def test_images_are_compressed_without_loss(tmp_path: Path) -> None:
    episode = image_episode(30)
    episode.observations["image"][:] = 77
    write_episode(tmp_path / "a.h5", episode)
    assert (tmp_path / "a.h5").stat().st_size < 2 * episode.observations["image"].nbytes + 20_000
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["observation/image"].compression == "gzip"
        assert file["observation/image"].id.get_storage_size() < episode.observations["image"].nbytes / 20


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.h5"
    write_episode(path, image_episode(40))
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    with pytest.raises(DatasetError, match=r"cut\.h5.*(truncated|missing|cannot be read)"):
        read_episode(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_never_changes_an_episode_silently(tmp_path: Path, place: float, flip: int) -> None:
    path = tmp_path / "flipped.h5"
    episode = image_episode(10)
    write_episode(path, episode)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    path.write_bytes(content)
    try:
        read = read_episode(path)
    except DatasetError as error:
        assert "flipped.h5" in str(error)
    else:
        assert_same(read, episode)  # the byte was padding
    # These do not look at the checksum: whatever is left in the file, or a line that names it.
    for part in (lambda: read_fields(path, ["cost", "time_ns"]), lambda: read_pictures(path, [0, 9])):
        try:
            part()
        except DatasetError as error:
            assert "flipped.h5" in str(error)


@pytest.mark.parametrize("field", ["reward", "action/executed", "observation/pose", "time_ns"])
def test_an_altered_field_is_found(tmp_path: Path, field: str) -> None:
    path = tmp_path / "altered.h5"
    write_episode(path, image_episode(5))
    with h5py.File(path, "r+") as file:
        values = file[field][()]
        values.flat[0] += 1
        file[field][()] = values
    with pytest.raises(DatasetError, match=r"altered\.h5: sha256"):
        read_episode(path)


def test_altered_metadata_is_found(tmp_path: Path) -> None:
    path = tmp_path / "altered.h5"
    write_episode(path, image_episode(5))
    with h5py.File(path, "r+") as file:
        file.attrs["metadata"] = file.attrs["metadata"].replace('"original"', '"random_layout"')
    with pytest.raises(DatasetError, match="sha256"):
        read_episode(path)


@pytest.mark.parametrize("field", ["reward", "cost", "action/executed", "filter_reason", "observation/pose", "time_ns"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = tmp_path / "lacks.h5"
    write_episode(path, image_episode(5))
    with h5py.File(path, "r+") as file:
        del file[field]
    with pytest.raises(DatasetError, match=rf"lacks\.h5: .*{field.split('/')[-1]}"):
        read_episode(path)


def test_an_unexpected_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "more.h5"
    write_episode(path, image_episode(5))
    with h5py.File(path, "r+") as file:
        file["action/other"] = np.zeros(5)
    with pytest.raises(DatasetError, match="action/other: unexpected"):
        read_episode(path)


BAD = {
    "reward": lambda e: dataclasses.replace(e, reward=e.reward[:-1]),
    "action/executed": lambda e: dataclasses.replace(e, executed_action=e.executed_action[:0]),
    "action/policy": lambda e: dataclasses.replace(e, policy_action=e.policy_action * np.nan),
    "cost": lambda e: dataclasses.replace(e, cost=e.cost - 2),
    "terminated": lambda e: dataclasses.replace(e, terminated=np.ones(len(e), bool)),
    "intervention": lambda e: dataclasses.replace(e, intervention=e.reward),
    "time_ns": lambda e: dataclasses.replace(e, time_ns=e.time_ns[:-1]),
    "filter_reason": lambda e: dataclasses.replace(e, filter_reason=e.filter_reason[:-1]),
    "observation/image": lambda e: dataclasses.replace(e, observations=e.observations | {
        "image": e.observations["image"].astype(np.float32)}),
    "pose": lambda e: dataclasses.replace(e, observations={"image": e.observations["image"]}),
    "metadata specs": lambda e: dataclasses.replace(e, metadata={}),
    "metadata": lambda e: dataclasses.replace(e, metadata=e.metadata | {"made": object()}),
}


@pytest.mark.parametrize("field", BAD)
def test_an_inconsistent_episode_is_not_written(tmp_path: Path, field: str) -> None:
    with pytest.raises(DatasetError, match=field):
        write_episode(tmp_path / "bad.h5", BAD[field](image_episode(5)))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.h5"
    write_episode(path, image_episode(5, seed=1))
    with pytest.raises(DatasetError):
        write_episode(path, BAD["reward"](image_episode(5, seed=2)))
    assert_same(read_episode(path), image_episode(5, seed=1))


# The store


def store_of(*lengths: int, directory: Path) -> EpisodeStore:
    for index, steps in enumerate(lengths):
        write_episode(directory / f"{index}.h5", image_episode(steps, seed=index))
    return EpisodeStore(directory)


def test_rows_follow_the_arrival_convention(tmp_path: Path) -> None:
    store = store_of(4, directory=tmp_path)
    episode = image_episode(4, seed=0)
    rng = np.random.default_rng(0)
    while True:  # a window that starts at the episode's first row shows all of it
        batch = {name: value[0] for name, value in store.sample(1, 5, rng).items()}
        if batch["is_first"][0]:
            break
    np.testing.assert_array_equal(batch["image"], episode.observations["image"])
    np.testing.assert_array_equal(batch["action"], np.vstack([np.zeros((1, 6)), episode.executed_action]))
    np.testing.assert_array_equal(batch["policy_action"][1:], episode.policy_action)
    np.testing.assert_array_equal(batch["next_action"], np.vstack([episode.executed_action, np.zeros((1, 6))]))
    np.testing.assert_array_equal(batch["reward"], [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(batch["cost"], [0, *episode.cost])
    np.testing.assert_array_equal(batch["is_first"], [True, False, False, False, False])
    np.testing.assert_array_equal(batch["is_last"], [False, False, False, False, True])
    np.testing.assert_array_equal(batch["is_terminal"], [False, False, False, False, True])
    np.testing.assert_array_equal(batch["has_next_action"], [True, True, True, True, False])
    np.testing.assert_array_equal(batch["return_to_go"], [1, 1, 1, 1, 0])
    np.testing.assert_allclose(batch["cost_to_go"], [episode.cost[t:].sum() for t in range(5)])
    assert batch["image"].dtype == np.uint8
    assert batch["action"].dtype == batch["cost"].dtype == np.float32


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), length=st.integers(1, 30), seed=st.integers(0, 99))
def test_windows_are_runs_of_one_episode_after_another(lengths: list[int], length: int, seed: int) -> None:
    store = EpisodeStore()
    for index, steps in enumerate(lengths):
        store.add(image_episode(steps, seed=index))
    batch = store.sample(3, length, np.random.default_rng(seed))
    for name, value in batch.items():
        assert value.shape[:2] == (3, length), name
    # A row is an episode's first exactly where the row before was one's last.
    np.testing.assert_array_equal(batch["is_first"][:, 1:], batch["is_last"][:, :-1])
    np.testing.assert_array_equal(batch["has_next_action"], ~batch["is_last"])
    # Within an episode the action that leads on is the one that arrives.
    inside = ~batch["is_first"][:, 1:]
    np.testing.assert_array_equal(batch["next_action"][:, :-1][inside], batch["action"][:, 1:][inside])
    assert not batch["action"][batch["is_first"]].any()
    assert not batch["cost"][batch["is_first"]].any()


def test_every_row_is_equally_likely_and_weights_count() -> None:
    store = EpisodeStore()
    store.add(image_episode(2, seed=0))
    store.add(image_episode(5, seed=1), weight=4.0)
    first = image_episode(2, seed=0).observations["pose"]
    rng = np.random.default_rng(0)
    poses = store.sample(9000, 1, rng)["pose"][:, 0]
    counts = [(poses == row).all(1).sum() for row in first]
    # Each of the first episode's 3 rows against 6 rows of weight 4: 1/27 of the draws; four standard deviations.
    assert np.abs(np.array(counts) - 9000 / 27).max() < 4 * np.sqrt(9000 / 27)


def test_same_generator_same_batch(tmp_path: Path) -> None:
    store = store_of(3, 8, directory=tmp_path)
    one, other = (store.sample(4, 6, np.random.default_rng(5)) for _ in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_adding_later_is_like_loading_all(tmp_path: Path) -> None:
    whole = store_of(3, 200, 7, 300, directory=tmp_path)
    grown = EpisodeStore(tmp_path / "0.h5")
    for index in (1, 2, 3):
        grown.add(tmp_path / f"{index}.h5")
    assert len(grown) == len(whole) == 4
    assert grown.rows == whole.rows == 514
    for name, value in whole.sample(8, 50, np.random.default_rng(0)).items():
        np.testing.assert_array_equal(value, grown.sample(8, 50, np.random.default_rng(0))[name])


def test_data_hash_is_of_the_set(tmp_path: Path) -> None:
    store = store_of(3, 4, directory=tmp_path)
    backwards = EpisodeStore([tmp_path / "1.h5", tmp_path / "0.h5"])
    assert store.data_hash() == backwards.data_hash()
    backwards.add(image_episode(4, seed=9))
    assert store.data_hash() != backwards.data_hash()


def test_select_keeps_only_what_passes(tmp_path: Path) -> None:
    store = store_of(3, 9, 4, directory=tmp_path)
    short = store.select(lambda summary: summary.rows < 8)
    assert [summary.rows for summary in short.summaries] == [4, 5]
    wanted = np.vstack([image_episode(steps, seed=seed).observations["pose"] for seed, steps in ((0, 3), (2, 4))])
    for pose in short.sample(50, 1, np.random.default_rng(0))["pose"][:, 0]:
        assert (wanted == pose).all(1).any()


def test_broken_files_are_all_named_or_left_out_when_asked(tmp_path: Path) -> None:
    store_of(3, 4, 5, directory=tmp_path)
    (tmp_path / "1.h5").write_bytes(b"not an episode")
    (tmp_path / "2.h5").write_bytes((tmp_path / "2.h5").read_bytes()[:2000])
    (tmp_path / ".3.h5.77.tmp").write_bytes(b"left by a killed writer")
    with pytest.raises(DatasetError, match=r"2 of 3 .*1\.h5.*2\.h5"):
        len(EpisodeStore(tmp_path))
    store = EpisodeStore(tmp_path, skip_broken=True)
    assert len(store) == 1
    assert sorted(path.name for path in store.broken) == ["1.h5", "2.h5"]


def test_other_specs_are_refused(tmp_path: Path) -> None:
    store = store_of(3, directory=tmp_path)
    other = image_episode(3, seed=5)
    specs = Specs.from_json(other.metadata["specs"])
    other.metadata["specs"] = Specs(specs.observation, specs.action, {"max_translation_step": 0.03}).to_json()
    with pytest.raises(DatasetError, match=r"max_translation_step.*0\.015.*0\.03"):
        store.add(other)
    assert len(store) == 1


def test_an_observation_may_not_take_a_batch_fields_name() -> None:
    episode = image_episode(3)
    specs = Specs.from_json(episode.metadata["specs"])
    episode.observations["reward"] = episode.observations.pop("pose")
    episode.metadata["specs"] = Specs({"image": specs.observation["image"], "reward": Spec("r", (6,))},
                                      specs.action, specs.scales).to_json()
    with pytest.raises(DatasetError, match="observation/reward"):
        EpisodeStore().add(episode)


@pytest.mark.parametrize("make", [lambda path: EpisodeStore(path / "nowhere"), lambda path: EpisodeStore(path),
                                  lambda path: read_episode(path / "nowhere.h5")])
def test_missing_data_is_named(tmp_path: Path, make: object) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        make(tmp_path)  # type: ignore[operator]


def test_an_empty_store_says_so() -> None:
    with pytest.raises(DatasetError, match="no episodes"):
        EpisodeStore().sample(1, 1, np.random.default_rng(0))
