"""Episodes through other programs' formats and back: what the format can hold comes back, damage is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_collection.commands import ONE_FILE_EACH, Convert
from data_collection.conversion import lerobot_layout, mcap_export, mcap_to_episode
from data_collection.conversion.dsrl_episodes import dsrl_episodes, write_dsrl_file
from data_collection.conversion.lerobot_export import write_lerobot
from data_collection.conversion.lerobot_import import lerobot_episodes
from data_collection.conversion.mcap_export import write_mcap
from data_collection.conversion.npz import read_npz, write_npz
from data_collection.conversion.whole import remove_left_behind
from safe_policy_core.benchmark import example_episode
from safe_policy_core.data.dsrl import KEYS
from safe_policy_core.data.episode_file import content_hash, read_episode, write_episode
from safe_policy_core.errors import DatasetError

FUZZ = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def episode(seed=0, steps=6):
    """Every field has something in it, and no two rows are alike."""
    rng = np.random.default_rng(seed)
    plain = example_episode(seed, steps)
    plain.metadata |= {"success": True, "operator": "anna"}
    jitter = rng.integers(0, 999, steps + 1)
    return replace(plain, policy_action=rng.uniform(-1, 1, (steps, 6)).astype(np.float32),
                   human_action=rng.uniform(-1, 1, (steps, 6)).astype(np.float32),
                   intervention=rng.random(steps) < 0.5, filter_reason=["workspace", ""] * (steps // 2),
                   cost=(rng.random(steps) < 0.4).astype(np.float32),
                   time_ns=1_700_000_000_000_000_000 + np.arange(steps + 1) * 100_000_000 + jitter)


EPISODES = [("first", episode(1)), ("second", episode(2, 8))]


def same(found, expected):
    for (name, a), (wanted, b) in zip(found, expected, strict=True):
        assert name == wanted and content_hash(a) == content_hash(b)


def test_npz_loses_nothing_and_is_plain(tmp_path):
    path = write_npz(tmp_path / "a.npz", EPISODES[0][1])
    same([("first", read_npz(path))], EPISODES[:1])
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["cost"], EPISODES[0][1].cost)
        assert all(arrays[name].dtype != object for name in arrays.files)


def test_a_pickle_in_an_npz_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())
    np.savez(tmp_path / "a.npz", metadata=np.array([Bomb()], object))
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=r"a\.npz: .*pickle"):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def test_lerobot_images_lose_nothing(tmp_path):
    root = write_lerobot(tmp_path / "set", EPISODES)
    same(lerobot_episodes(root), EPISODES)
    info = json.loads((root / lerobot_layout.INFO_PATH).read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10 and info["total_frames"] == 14
    assert {"next.cost", "next.terminated", "next.truncated", "next.reward"} <= info["features"].keys()
    table = pq.read_table(root / lerobot_layout.DATA_PATH.format(chunk_index=0, file_index=0))
    assert set(table.column_names) == info["features"].keys()
    assert table["index"].to_pylist() == list(range(14))


def test_lerobot_video_keeps_everything_but_exact_pixels(tmp_path):
    root = write_lerobot(tmp_path / "set", EPISODES, video=True)
    for (name, found), (wanted, expected) in zip(lerobot_episodes(root), EPISODES, strict=True):
        assert name == wanted
        for field in ("executed_action", "cost", "terminated", "truncated", "time_ns", "human_action"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
        error = found.observations["image"].astype(float) - expected.observations["image"]
        assert found.observations["image"].shape == expected.observations["image"].shape
        assert np.abs(error[-1]).max() == 0, "the last picture is kept losslessly"
        # Blocks of random colours are the worst case for yuv420p; neighbouring pictures differ by about 85.
        assert np.abs(error).mean() < 30


def test_lerobot_data_of_others_is_read_as_far_as_it_goes(tmp_path):
    """A dataset without our columns: no observation after the last step, no cost, no end."""
    root = write_lerobot(tmp_path / "set", EPISODES)
    rows = root / lerobot_layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
    table = pq.read_table(rows)
    pq.write_table(table.drop([name for name in table.column_names if name.startswith("safe_policy.")]), rows)
    path = root / lerobot_layout.INFO_PATH
    info = json.loads(path.read_text())
    data = root / lerobot_layout.DATA_PATH.format(chunk_index=0, file_index=0)
    gone = ["next.cost", "next.terminated", "next.truncated", "policy_action", "human_action", "intervention",
            "filter_reason", "time_ns"]
    pq.write_table(pq.read_table(data).drop(gone), data)
    path.write_text(json.dumps(info | {"features": {k: v for k, v in info["features"].items() if k not in gone}}))
    (name, found), _ = lerobot_episodes(root)
    expected = EPISODES[0][1]
    assert name == "episode_000000" and found.metadata["labels"] == "none" and found.metadata["task"] == "original"
    found = found.validated()
    np.testing.assert_array_equal(found.executed_action, expected.executed_action)
    np.testing.assert_array_equal(found.observations["state"][:-1], expected.observations["pose"][:-1])
    np.testing.assert_array_equal(found.observations["image"][-1], found.observations["image"][-2])
    assert found.terminated[-1] and not found.cost.any() and found.metadata["last_observation"] == "repeated"


@pytest.mark.parametrize(("change", "expected"), [
    ({"codebase_version": "v2.1"}, "codebase_version: expected v3.0, got 'v2.1'"),
    ({"data_path": "../../{chunk_index}"}, "data_path: expected"),
    ({"fps": 0}, "fps: expected a positive number"), ({"features": {}}, "expected an action")])
def test_a_lerobot_dataset_of_another_kind_is_named(tmp_path, change, expected):
    root = write_lerobot(tmp_path / "set", EPISODES[:1])
    path = root / lerobot_layout.INFO_PATH
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match=expected):
        list(lerobot_episodes(root))


def test_a_link_out_of_a_lerobot_dataset_is_not_followed(tmp_path):
    root = write_lerobot(tmp_path / "set", EPISODES[:1])
    data = root / lerobot_layout.DATA_PATH.format(chunk_index=0, file_index=0)
    shutil.move(data, tmp_path / "secret.parquet")
    data.symlink_to(tmp_path / "secret.parquet")
    with pytest.raises(DatasetError, match="leads out of the dataset's folder"):
        list(lerobot_episodes(root))


def test_dsrl_keeps_what_its_columns_hold(tmp_path):
    path = write_dsrl_file(tmp_path / "all.hdf5", EPISODES)
    with h5py.File(path) as file:
        assert set(KEYS) == set(file)
        assert len(file["costs"]) == 14
    for (_, found), (_, expected) in zip(dsrl_episodes(path), EPISODES, strict=True):
        found = found.validated()
        np.testing.assert_array_equal(found.observations["pose"], expected.observations["pose"])
        for field in ("executed_action", "reward", "cost", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), field)
        assert found.metadata["operator"] == "anna"


def test_mcap_gives_the_same_steps_back(tmp_path):
    expected = EPISODES[0][1]
    found = mcap_to_episode(write_mcap(tmp_path / "a.mcap", expected))
    assert content_hash(replace(found, metadata=expected.metadata)) == content_hash(expected)
    assert found.metadata["operator"] == "anna" and found.metadata["replaced_images"] == 0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    write_npz(root / "a.npz", EPISODES[0][1])
    write_dsrl_file(root / "a.hdf5", EPISODES[:1])
    write_episode(root / "a.h5", EPISODES[0][1])
    return root


READERS = {"a.npz": read_npz, "a.hdf5": lambda path: list(dsrl_episodes(path)), "a.h5": read_episode}


@pytest.mark.parametrize("name", READERS)
@FUZZ
@given(data=st.data())
def test_damage_is_named_or_harmless(files, tmp_path, name, data):
    content = bytearray((files / name).read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)):]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / name
    path.write_bytes(content)
    try:
        found = READERS[name](path)
    except DatasetError as error:
        assert name in str(error) and "\n" not in str(error)
        return
    if name != "a.hdf5":  # DSRL's format has no checksum
        assert content_hash(found) == content_hash(EPISODES[0][1])


@FUZZ
@given(data=st.data())
def test_a_damaged_lerobot_dataset_is_named_or_harmless(lerobot, tmp_path_factory, data):
    root = tmp_path_factory.mktemp("set") / "set"
    shutil.copytree(lerobot, root)
    path = data.draw(st.sampled_from(sorted(p for p in root.rglob("*") if p.is_file())))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)):]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = list(lerobot_episodes(root))
    except DatasetError as error:
        assert str(root) in str(error) and "\n" not in str(error)
        return
    finally:
        shutil.rmtree(root)
    assert all(content_hash(e) == content_hash(EPISODES[0][1]) for _, e in found)


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory):
    return write_lerobot(tmp_path_factory.mktemp("lerobot") / "set", EPISODES[:1])


@pytest.mark.parametrize("target", ["mcap", "lerobot", "dsrl", "npz"])
def test_convert_there_and_back(tmp_path, target):
    for name, item in EPISODES:
        write_episode(tmp_path / "in" / f"{name}.h5", item)
    (tmp_path / "in" / "bad.npz").write_bytes(b"nonsense")
    out = tmp_path / ("all.hdf5" if target == "dsrl" else "out")
    with pytest.raises(DatasetError, match=r"1 of 3 recordings not converted: .*bad\.npz"):
        Convert((tmp_path / "in",), to=target, out=out).run()
    result = Convert((out,), out=tmp_path / "back").run()
    assert result["count"] == 2 and result["steps"] == 14
    costs = sorted(float(read_episode(path).cost.sum()) for path in (tmp_path / "back").iterdir())
    assert costs == sorted(float(item.cost.sum()) for _, item in EPISODES)
    assert json.loads(json.dumps(result)) == result


def test_convert_says_what_a_format_cannot_hold(tmp_path):
    write_episode(tmp_path / "a.h5", EPISODES[0][1])
    result = Convert((tmp_path / "a.h5",), to="dsrl", out=tmp_path / "a.hdf5").run()
    assert any("pictures" in line for line in result["not_kept"])
    assert Convert((tmp_path / "a.h5",), to="npz", out=tmp_path / "npz").run()["not_kept"] == []


def test_a_name_from_a_dataset_cannot_lead_out_of_the_folder(tmp_path):
    root = write_lerobot(tmp_path / "set", [("../../escaped", EPISODES[0][1]), EPISODES[1]])
    with pytest.raises(DatasetError, match=r"1 of .*episode name '\.\./\.\./escaped'"):
        Convert((root,), out=tmp_path / "deep" / "out").run()
    assert [path.name for path in tmp_path.rglob("*.h5")] == ["second.h5"]


KILLED = """
import os, signal, sys
from pathlib import Path
from data_collection.commands import Convert
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Convert((Path(sys.argv[1]),), to=sys.argv[2], out=Path(sys.argv[3])).run()
"""


@pytest.mark.parametrize("target", ["mcap", "lerobot", "dsrl", "npz", "hdf5"])
def test_a_killed_conversion_leaves_nothing_that_looks_like_a_result(tmp_path, target):
    """Killed when all is written but the last name; what it left goes when it is an hour old."""
    write_episode(tmp_path / "in" / "a.h5", EPISODES[0][1])
    folder = tmp_path / "out"
    out = folder / "set" if target in ("dsrl", "lerobot") else folder
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), target, str(out)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".")
    os.utime(left, (0, 0))
    assert Convert((tmp_path / "in",), to=target, out=out).run()["count"] == 1
    remove_left_behind(folder)
    assert [path.name for path in folder.iterdir()] == ["set" if out != folder else f"a{ONE_FILE_EACH[target]}"]


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    other = example_episode(5, 6)
    other.metadata["specs"]["scales"]["max_translation_step"] = 0.5
    with pytest.raises(DatasetError, match=r"set: other: specs differ"):
        write_lerobot(tmp_path / "set", [EPISODES[0], ("other", other)])
    monkeypatch.setattr(mcap_export, "_step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_mcap(tmp_path / "a.mcap", EPISODES[0][1])
    assert not list(tmp_path.iterdir())
