"""What the review page is made of, without a browser."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from data_collection.isolation import in_workers
from data_collection.review import facts as facts_module
from data_collection.review import pictures
from data_collection.review.command import Review
from data_collection.review.dataset import ReviewDataset
from data_collection.review.page import ReviewPage
from data_collection.review.player import Player
from data_collection.review.selection import ORDERS, chosen, verdict_counts
from safe_policy_core.data.episodes import EpisodeStore, write_episode
from safe_policy_core.data.labels import LABELS_FILE, LabelLayer, recording_id
from safe_policy_core.data.scores import Score, write_scores
from safe_policy_core.errors import ConfigurationError, DatasetError
from tests.data_collection.review_rig import pushed


def loaded(folder: Path, who: str = "anna") -> ReviewDataset:
    dataset = ReviewDataset(folder, who)
    dataset.load(threading.Event())
    return dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write_episode(tmp_path / "episodes" / f"{seed}.h5", pushed(seed=seed))
    return tmp_path / "episodes"


def test_marks_reach_training_and_survive_a_restart(folder: Path) -> None:
    dataset = loaded(folder)
    dataset.mark(0, "cost", [(2, 4), (6, 7)], 1.0)
    dataset.decide(1, "reject")
    dataset.write_note(2, "box fell")
    again = loaded(folder, "ben")
    assert [row["cost"] for row in again.rows()] == [3, 0, 0]
    assert again.row(1)["verdict"] == "reject" and again.row(2)["note"] == "box fell"
    assert verdict_counts(again.rows()) == {"accept": 0, "reject": 1, "open": 2, "problem": 0}
    store = EpisodeStore(folder)
    assert [summary.total_cost for summary in store.summaries] == [3, 0]


def test_undo_takes_back_ones_own_last_action_only(folder: Path) -> None:
    anna, ben = loaded(folder), loaded(folder, "ben")
    anna.mark(0, "cost", [(0, 1), (3, 4)], 1.0)
    ben.decide(1, "accept")
    anna.poll()
    assert anna.undo() == 0
    assert anna.row(0)["cost"] == 0 and anna.row(1)["verdict"] == "accept"
    assert anna.undo() is None
    ben.poll()
    assert ben.undo() == 1 and ben.row(1)["verdict"] == "open"


def test_what_another_process_writes_is_seen(folder: Path) -> None:
    one, other = loaded(folder), loaded(folder, "ben")
    before = one.poll()
    assert one.poll() == before
    other.decide(0, "accept")
    assert one.poll() > before and one.row(0)["verdict"] == "accept"


def test_every_bad_file_is_a_line_and_the_rest_works(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.h5").write_bytes(b"not an episode")
    (folder / "copy.h5").write_bytes((folder / "0.h5").read_bytes())
    (folder / "2.h5").write_bytes((folder / "2.h5").read_bytes()[:-3000])
    write_episode(tmp_path / "outside.h5", pushed(seed=9))
    (folder / "link.h5").symlink_to(tmp_path / "outside.h5")
    (folder / "loop.h5").symlink_to("loop.h5")
    (folder / "red\x1b[31m.h5").write_bytes(b"")
    os.mkfifo(folder / "pipe.h5")
    dataset = loaded(folder)
    problems = {row["name"]: row["problem"] for row in dataset.rows()}
    assert [name for name, problem in problems.items() if not problem] == ["0.h5", "1.h5"]
    for name, text in (("bad.h5", "not an HDF5"), ("copy.h5", "same recording as 0.h5"), ("2.h5", "truncated"),
                       ("link.h5", "out of the folder"), ("loop.h5", "no such episode file"),
                       ("pipe.h5", "no such episode file"), ("red\x1b[31m.h5", r"red\x1b[31m.h5: truncated")):
        assert text in problems[name]
    bad = next(index for index, row in enumerate(dataset.rows()) if row["name"] == "bad.h5")
    with pytest.raises(DatasetError, match="cannot be labelled"):
        dataset.decide(bad, "accept")


def test_the_page_begins_with_an_episode_and_shows_why_a_file_is_none(folder: Path) -> None:
    (folder / "-bad.h5").write_bytes(b"not an episode")
    page = ReviewPage(loaded(folder))
    shown = page.changes()
    assert (shown["selected"], shown["name"]) == (1, "0.h5") and shown["tracks"]
    page.take('{"do": "choose", "index": 0}')
    shown = page.changes()
    assert "not an HDF5 file" in shown["name"] and shown["tracks"] == "" and "notice" not in shown
    assert page.lacks() is None


def test_a_file_that_kills_its_reader_costs_only_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts_module.read_fields
    monkeypatch.setattr(facts_module, "read_fields", lambda path, names: (
        os.kill(os.getpid(), signal.SIGKILL) if path.name == "1.h5" else whole(path, names)))
    rows = loaded(folder).rows()
    assert [bool(row["recording"]) for row in rows] == [True, False, True] and "crashes" in rows[1]["problem"]


def test_what_was_read_once_is_kept_until_the_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(folder)
    first.mark(0, "cost", [(2, 4)], 1.0)

    def never(path: Path, *_: object) -> None:
        raise DatasetError(f"{path.name}: read again")

    changed = pushed(seed=7)
    write_episode(folder / "1.h5", changed)
    with monkeypatch.context() as patch:
        patch.setattr(facts_module, "read_fields", never)
        patch.setattr(facts_module, "read_episode", never)
        again = loaded(folder)
    assert [row["problem"] for row in again.rows()] == ["", "1.h5: read again", ""]
    assert again.row(0) == first.row(0) and again.row(2) == first.row(2)
    with h5py.File(folder / "2.h5", "a") as file:
        file["observation/image"][3, 0, 0] = 1
    os.utime(folder / "2.h5", ns=(first_time := (folder / "0.h5").stat().st_mtime_ns, first_time))
    third = loaded(folder)
    assert third.row(1)["recording"] == recording_id(changed) and "sha256" in third.row(2)["problem"]


def test_a_cache_that_is_none_is_done_without(folder: Path) -> None:
    before = loaded(folder).rows()
    kept = facts_module.KeptFacts(folder)
    assert kept.of("0.h5", facts_module.stamp(folder / "0.h5"))
    for content in ("{]", '{"format": 1, "files": 3}', '{"format": 1, "files": {"0.h5": [], "1.h5": {"stamp": 3}}}'):
        kept.path.write_text(content)
        assert loaded(folder).rows() == before


def test_a_connection_ends_though_a_worker_was_started_while_it_lasted(tmp_path: Path) -> None:
    here, there = socket.socketpair()
    with here, there:
        results = in_workers(slow, [tmp_path] * 2, 1)
        next(results)
        here.close()
        there.settimeout(0.5)
        assert there.recv(1) == b""
        results.close()


def slow(path: Path) -> Path:
    time.sleep(0.7)
    return path


HOSTILE = ("", "not json", "[]", "null", "{}", '{"do": []}', '{"do": "choose", "index": 99}', '{"do": "choose"}',
           '{"do": "mark", "key": 0, "kind": "cost", "first": 0, "end": Infinity, "value": 1}',
           '{"do": "mark", "key": 0, "kind": "cost", "first": 0, "end": 99, "value": 1}',
           '{"do": "mark", "key": 0, "kind": "cost", "first": 0, "end": 2, "value": NaN}',
           '{"do": "mark", "key": 0, "kind": "verdict", "first": 0, "end": 2, "value": 1}',
           '{"do": "view", "order": "__import__"}', '{"do": "note", "index": "x", "text": ""}',
           '{"do": "command", "command": "accept"}', "[" * 100_000)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
def test_a_message_that_no_page_sends_is_answered_and_changes_nothing(folder: Path, text: str) -> None:
    page = ReviewPage(loaded(folder))
    assert page.changes()["tracks"]
    shown = page.lacks()
    assert shown == 0
    page.add(*page.find(shown))
    assert page.lacks() is None and json.loads(page.changes()["tracks"])["suggestion"]
    page.take(text)
    assert page.changes()["notice"]
    assert not (folder / LABELS_FILE).exists()


def test_an_altered_picture_is_found_by_the_checksum(folder: Path) -> None:
    with h5py.File(folder / "1.h5", "a") as file:
        file["observation/image"][3, 0, 0] = 1
    problem = loaded(folder).row(1)["problem"]
    assert "sha256" in problem


def test_a_damaged_label_file_is_told_and_nothing_is_written_to_it(folder: Path) -> None:
    (folder / LABELS_FILE).write_text("{]\n")
    dataset = loaded(folder)
    assert "line 1" in dataset.problems[0] and dataset.row(0)["verdict"] == "open"
    with pytest.raises(DatasetError, match=r"0\.h5: cannot be labelled.*line 1"):
        dataset.decide(0, "accept")


def test_steps_outside_are_refused(folder: Path) -> None:
    dataset = loaded(folder)
    for interval in ((-1, 2), (3, 3), (5, 13)):
        with pytest.raises(DatasetError, match="steps"):
            dataset.mark(0, "cost", [interval], 1.0)
    assert not LabelLayer(folder).history(dataset.entries[0].recording)


def test_worst_scored_come_first_and_filters_choose(folder: Path) -> None:
    write_scores(folder, [Score(recording_id(pushed(seed=seed)), f"{seed}.h5", "dspo", score, tuple([0.1] * 12))
                          for seed, score in ((0, 0.8), (2, 0.1))])
    dataset = loaded(folder)
    dataset.mark(1, "cost", [(0, 1)], 1.0)
    rows = dataset.rows()
    assert [row["name"] for row in chosen(rows, "all", "worst score first", "")] == ["2.h5", "0.h5", "1.h5"]
    assert [row["name"] for row in chosen(rows, "with cost", "name", "")] == ["1.h5"]
    assert [row["name"] for row in chosen(rows, "all", "name", "2.H")] == ["2.h5"]
    player = Player(dataset)
    tracks = player.tracks(2, [0])
    assert len(tracks["attention"]) == 12 and tracks["frames"] == 13 and player.suggestion(2) == [(2, 10)]
    half = [dict(row) for row in rows] + [{"index": 3, "name": "x.h5", "problem": "", "recording": ""}]
    for order in ORDERS:
        assert len(chosen(half, "all", order, "")) == 4


def test_sheets_hold_every_frame(tmp_path: Path) -> None:
    episode = pushed(40)
    write_episode(tmp_path / "0.h5", episode)
    for number, row in ((0, 0), (0, 31), (1, 32), (1, 40)):
        sheet = cv2.imdecode(np.frombuffer(pictures.sheet(tmp_path / "0.h5", number), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert sheet.shape == (4 * 32, 8 * 32, 3)
        y, x = divmod(row % 32, 8)
        frame = sheet[y * 32:(y + 1) * 32, x * 32:(x + 1) * 32].astype(int)
        assert np.abs(frame - episode.observations["image"][row]).mean() < 5
    strip = cv2.imdecode(np.frombuffer(pictures.thumbnail(tmp_path / "0.h5", 41), np.uint8), cv2.IMREAD_COLOR)
    assert strip.shape == (32, 96, 3)


def test_a_name_is_needed_and_episodes(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="who"):
        Review(tmp_path, who=" ").run()
    with pytest.raises(DatasetError, match="no episode files"):
        Review(tmp_path).run()
