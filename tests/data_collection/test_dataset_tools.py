"""`safe-policy dataset`: each bad file gets its line while the rest goes on; new datasets are whole and keep labels."""

import json
import os
import shutil
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tyro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_collection.benchmark import record_example
from data_collection.commands import Convert
from data_collection.dataset import check, mixing
from data_collection.dataset.commands import (
    Check,
    Dataset,
    Filter,
    Info,
    Merge,
    Mix,
    Plot,
    Recrop,
    Relabel,
    Split,
    Validate,
)
from data_collection.dataset.files import inside
from data_collection.dataset.manifest import MANIFEST, read_manifest
from data_collection.dataset.relabelling import from_table
from data_collection.dataset.summary import read_rows
from safe_policy_core.benchmark import example_episode
from safe_policy_core.data.episode_file import content_hash, read_episode, write_episode
from safe_policy_core.data.labels import LabelLayer, recording_id
from safe_policy_core.data.scores import SCORES_FILE, read_scores
from safe_policy_core.errors import DatasetError

STEPS = 6


def episode(seed, reach=True, contact=False, **metadata):
    plain = example_episode(seed, STEPS)
    cost = np.zeros(STEPS, np.float32)
    cost[2:4] = contact
    ends = plain.terminated & reach
    return replace(plain, reward=ends.astype(np.float32), terminated=ends, truncated=plain.terminated & (not reach),
                   cost=cost, metadata={**plain.metadata, **metadata})


@pytest.fixture
def folder(tmp_path):
    """Four episodes of each outcome, 16 in all."""
    root = tmp_path / "set"
    for index in range(16):
        write_episode(root / f"{index:02d}.h5", episode(index, index % 2 == 0, index % 4 > 1))
    return root


def checked(folder, **options):
    result = Check(folder, workers=1, **options).run()
    assert len(result["_text"].splitlines()) == len(result["bad"]) + 1, "one line a file"
    assert result["_exit_code"] == bool(result["bad"])
    return result


def rewrite(path, change):
    """Alters an episode file as another program might, with a fresh checksum where it can have one."""
    with h5py.File(path, "r+") as file:
        change(file)


def test_a_whole_dataset_is_whole(folder):
    result = checked(folder)
    assert result["files"] == 16 and result["steps"] == 16 * STEPS and not result["bad"]


def test_each_bad_file_has_its_line_and_the_rest_goes_on(folder, tmp_path):
    content = (folder / "00.h5").read_bytes()
    (folder / "01.h5").write_bytes(content[:len(content) // 2])
    (folder / "02.h5").write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    shutil.copy(folder / "03.h5", folder / "copy.h5")
    rewrite(folder / "04.h5", lambda file: file["cost"].__setitem__(0, 9.0))
    backwards = episode(5)
    write_episode(folder / "05.h5", replace(backwards, time_ns=backwards.time_ns[::-1].copy()))
    write_episode(folder / "renamed.h5", episode(99, episode_id="original-teleop-1"))
    (folder / "06.h5").unlink()
    (folder / "06.h5").symlink_to(tmp_path / "elsewhere.h5")
    (folder / "07.h5").unlink()
    os.mkfifo(folder / "07.h5")
    (folder / "line\nbreak.h5").write_bytes(b"")
    (folder / "x.mcap").write_bytes(b"\x89MCAP0\r\n")
    result = checked(folder)
    expected = {"01.h5": "truncated", "02.h5": "not an HDF5 file", "copy.h5": "the same content as 03.h5",
                "04.h5": "sha256", "05.h5": "time_ns: steps out of order", "renamed.h5": "renamed: it was recorded as",
                "06.h5": "a link", "07.h5": "not a regular file", "line\\nbreak.h5": "truncated", "x.mcap": "truncated"}
    assert result["bad"].keys() == expected.keys()
    for name, words in expected.items():
        assert words in result["bad"][name], name
    assert result["files"] == 20


def test_hostile_hdf5_is_refused(folder, tmp_path):
    write_episode(tmp_path / "secret.h5", episode(50))

    def external(file):
        del file["observation/pose"]
        file["observation/pose"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/observation/pose")

    def huge(file):
        del file["reward"]
        file.create_dataset("reward", (1 << 40,), "float32", chunks=(1 << 20,), compression="gzip")

    def cycle(file):
        file["observation/again"] = file["observation"]

    for name, change, words in (("00.h5", external, "a link"), ("01.h5", huge, "more than the file can hold"),
                                ("02.h5", cycle, "groups within groups")):
        rewrite(folder / name, change)
        assert words in checked(folder)["bad"][name]
    assert len(checked(folder)["bad"]) == 3


def test_a_file_that_kills_its_reader_costs_only_itself(folder, monkeypatch):
    whole = check.check_file
    monkeypatch.setattr(check, "check_file",
                        lambda path: os.kill(os.getpid(), signal.SIGKILL) if path.name == "05.h5" else whole(path))
    result = checked(folder)
    assert result["bad"].keys() == {"05.h5"} and "crashes its reader" in result["bad"]["05.h5"]


def test_the_manifest_knows_renamed_swapped_replaced_and_lost_files(folder):
    checked(folder, seal=True)
    assert not checked(folder)["bad"]
    shutil.copy(folder / "05.h5", folder / "05 copy.h5")
    assert checked(folder)["bad"] == {"05 copy.h5": "the same content as 05.h5: remove one of them"}
    (folder / "05 copy.h5").unlink()
    (folder / "00.h5").rename(folder / "new.h5")
    (folder / "01.h5").rename(folder / "t.h5")
    (folder / "02.h5").rename(folder / "01.h5")
    (folder / "t.h5").rename(folder / "02.h5")
    write_episode(folder / "03.h5", episode(77))
    write_episode(folder / "extra.h5", episode(78))
    (folder / "04.h5").unlink()
    bad = checked(folder)["bad"]
    assert "under 00.h5" in bad["new.h5"] and "under 02.h5" in bad["01.h5"] and "under 01.h5" in bad["02.h5"]
    assert "replaced" in bad["03.h5"] and "not in episodes.sha256" in bad["extra.h5"] and "lost" in bad["04.h5"]
    assert len(bad) == 6


@pytest.mark.parametrize("name", ["../x.h5", "/etc/passwd", "a/../../x.h5", "", "a\\..\\x", "x\x1b[2J.h5"])
def test_names_from_files_stay_inside(tmp_path, name):
    with pytest.raises(DatasetError):
        inside(tmp_path, name)
    (tmp_path / "set").mkdir()
    write_episode(tmp_path / "set" / "a.h5", episode(0))
    if name and "\x1b" not in name:
        (tmp_path / "set" / MANIFEST).write_text(f"{'0' * 64}  {name}\n")
        assert "expected the name of a file" in checked(tmp_path / "set")["bad"][MANIFEST]


def test_info_and_mix_count_outcomes(folder):
    result = Info(folder).run()
    assert result["episodes"] == 16 and set(result["outcomes"].values()) == {4} and result["steps_with_cost"] == 16
    lines = Mix(folder, target=(8, 4, 2, 4)).run()["_text"].splitlines()
    ends = ["4 of 8    4 to go", "4 of 4    done", "4 of 2    2 too many", "4 of 4    done", "14 of 18"]
    assert [line[-len(end):] for line, end in zip(lines, ends, strict=True)] == ends
    with pytest.raises(DatasetError, match="4 more safe_reach needed"):
        Mix(folder, target=(8, 4, 2, 4), out=folder.parent / "mixed").run()
    result = Mix(folder, target=(3, 2, 1, 0), out=folder.parent / "mixed").run()
    assert Info(folder.parent / "mixed").run()["outcomes"] == dict(zip(mixing.OUTCOMES, (3, 2, 1, 0), strict=True))
    assert result["count"] == 6


def test_validate_names_what_a_person_should_look_at(folder):
    clean = Validate(folder).run()
    assert not clean["doubts"] and clean["_exit_code"] == 0
    wild = episode(20)
    wild.executed_action[3, 0] = 1.5
    write_episode(folder / "wild.h5", wild)
    slow = episode(21)
    write_episode(folder / "slow.h5", replace(slow, time_ns=slow.time_ns + (np.arange(STEPS + 1) > 3) * 400_000_000))
    frozen = episode(22)
    frozen.observations["image"][:] = frozen.observations["image"][0]
    write_episode(folder / "frozen.h5", frozen)
    other = episode(23)
    other.metadata["specs"]["scales"]["max_translation_step"] = 0.03
    write_episode(folder / "other.h5", other)
    doubts = Validate(folder).run()["doubts"]
    assert doubts.keys() == {"wild.h5", "slow.h5", "frozen.h5", "other.h5"}
    assert "0.5 outside its bound 1.0, first in step 3" in doubts["wild.h5"]
    assert "step 3 took 0.500 s of 0.100 s" in doubts["slow.h5"]
    assert f"the same picture {STEPS + 1} times" in doubts["frozen.h5"]
    assert "scales max_translation_step" in doubts["other.h5"]


def test_plots_are_pictures(folder):
    import imageio.v3 as iio

    for path in Plot(folder).run()["plots"]:
        image = iio.imread(path)
        assert min(image.shape[:2]) > 200 and image[..., :3].std() > 5, path
    assert not checked(folder)["bad"]


def test_merge_takes_each_episode_once_with_its_labels(folder, tmp_path):
    Relabel(folder, "anna", table=table(tmp_path, "00.h5,cost,0,3,1")).run()
    second = tmp_path / "second"
    write_episode(second / "00.h5", episode(40))
    shutil.copy(folder / "01.h5", second / "again.h5")
    (second / "bad.h5").write_bytes(b"")
    result = Merge((folder, second), tmp_path / "merged").run()
    assert result["count"] == sum(result["outcomes"].values()) == 17 and len(result["left_out"]) == 2
    assert not checked(tmp_path / "merged")["bad"] and (tmp_path / "merged" / MANIFEST).exists()
    rows = {row.recording: row for row in read_rows(tmp_path / "merged")[0]}
    assert rows[recording_id(episode(0))].cost == 3
    with pytest.raises(DatasetError, match="exists already"):
        Merge((folder,), tmp_path / "merged").run()


def test_split_divides_every_outcome(folder, tmp_path):
    words = ["split", str(folder), "--out", str(tmp_path / "out"), "--parts", "train", "0.75", "test", "0.25"]
    tyro.cli(Dataset, args=[*words, "--seed", "3"]).run()
    train, test = (read_rows(tmp_path / "out" / name)[0] for name in ("train", "test"))
    assert len(train) == 12 and len(test) == 4 and {row.outcome for row in test} == set(mixing.OUTCOMES)
    assert not {row.recording for row in train} & {row.recording for row in test}
    for parts, words in (((("a", 0.5),), "add up to 1"), ((("a", 1.5), ("b", -0.5)), "add up to 1"),
                         ((("a", 0.5), ("a", 0.5)), "each name once"),
                         ((("../a", 0.5), ("b", 0.5)), "expected the name of a file")):
        with pytest.raises(DatasetError, match=words):
            Split(folder, tmp_path / "no", parts=parts).run()


def test_filter_keeps_what_meets_every_condition(folder, tmp_path):
    result = Filter(folder, tmp_path / "safe", max_cost=0, min_reward=1).run()
    assert result["count"] == 4 and set(Info(tmp_path / "safe").run()["outcomes"].values()) == {4, 0}
    with pytest.raises(DatasetError, match="none of 16"):
        Filter(folder, tmp_path / "none", operator=("nobody",)).run()


def table(tmp_path, *lines):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["file,kind,first,end,value", *lines]))
    return path


def test_relabel_appends_and_leaves_the_files_alone(folder, tmp_path):
    before = {path: content_hash(read_episode(path)) for path in folder.glob("*.h5")}
    result = Relabel(folder, "anna", table=table(tmp_path, "00.h5,cost,1,4,1", "00.h5,reward,0,6,0")).run()
    assert result["labels"] == 2 and result["outcomes"]["contact_reach"] == 4 and result["outcomes"]["safe_reach"] == 3
    assert {path: content_hash(read_episode(path)) for path in folder.glob("*.h5")} == before
    history = LabelLayer(folder).history(recording_id(read_episode(folder / "00.h5")))
    assert [(label.who, label.source, label.kind) for label in history] == [("anna", "table", "cost"),
                                                                           ("anna", "table", "reward")]
    (folder / "loop.h5").symlink_to("loop.h5")
    for line, words in (("../../x.h5,cost,0,1,1", "expected the name"), ("00.h5,cost,0,99,1", "steps 0 to 99"),
                        ("loop.h5,cost,0,1,1", "not a usable"), ("nothing.h5,cost,0,1,1", "not a usable"),
                        ("00.h5,cost,zero,1,1", "line 2"),
                        ("00.h5,verdict,0,1,1", "line 2: verdict"), ("00.h5,cost,0,1,-1", "expected reward or cost"),
                        ("00.h5,reward,0,1,nan", "expected reward or cost")):
        with pytest.raises(DatasetError, match=words):
            Relabel(folder, "anna", table=table(tmp_path, line)).run()


def test_relabel_by_the_papers_rule_finds_no_cost_where_nothing_moves(folder):
    for path in sorted(folder.glob("*.h5"))[1:]:
        path.unlink()
    still = episode(0, contact=True)
    still.observations["image"][:] = 128
    write_episode(folder / "00.h5", still)
    result = Relabel(folder, "rule", paper_rule=True).run()
    assert result["outcomes_before"]["contact_reach"] == 1 and result["outcomes"]["safe_reach"] == 1


def test_recrop_cuts_the_raw_log_again_and_keeps_labels(tmp_path):
    record_example(tmp_path / "set" / "example-1.mcap", steps=4, height=48, width=64)
    Convert((tmp_path / "set",)).run()
    write_episode(tmp_path / "set" / "alone.h5", episode(1))
    Relabel(tmp_path / "set", "anna", table=table(tmp_path, "example-1.h5,cost,0,4,1")).run()
    result = Recrop(tmp_path / "set", tmp_path / "new", image_size=(16, 16), crop=(4, 8, 16, 16)).run()
    assert result["count"] == 1 and "no such recording" in result["left_out"]["alone.h5"]
    assert read_episode(tmp_path / "new" / "example-1.h5").observations["image"].shape[1:] == (16, 16, 3)
    assert read_rows(tmp_path / "new")[0][0].cost == 4
    assert json.loads(json.dumps(result)) == result


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode), st.lists(
    st.sampled_from(["0" * 64, "  ", "a.h5", "../a.h5", "\n", "file,kind,first,end,value\n", "a.h5,cost,0,1,1\n", ","]),
    max_size=8).map("".join).map(str.encode)))
def test_any_manifest_table_or_scores_are_read_or_refused(tmp_path_factory, content):
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    if not root.exists():
        write_episode(root / "a.h5", episode(0))
    for name in (MANIFEST, SCORES_FILE, "table.csv"):
        (root / name).write_bytes(content)
    rows = read_rows(root)[0]
    for read in (lambda: read_manifest(root), lambda: read_scores(root),
                 lambda: from_table(root, root / "table.csv", rows)):
        try:
            read()
        except DatasetError as error:
            assert "\n" not in str(error)
