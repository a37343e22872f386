import json
import multiprocessing
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safe_policy_core.data.episode_file import read_fields, read_pictures, read_tracks
from safe_policy_core.data.episodes import EpisodeStore, read_episode, write_episode
from safe_policy_core.data.json_lines import append_lines, read_lines
from safe_policy_core.data.labels import LABELS_FILE, Label, LabelLayer, identity_hash, recording_id
from safe_policy_core.data.scores import SCORES_FILE, Score, read_scores, write_scores
from safe_policy_core.errors import DatasetError
from tests.core.point_env import image_episode


def label(recording: str, kind: str, identity: str = "a", **rest: object) -> Label:
    return Label(identity, recording, "0.h5", kind, "reviewer", "anna", "2026-01-01T00:00:00+00:00",
                 **rest)  # type: ignore[arg-type]


def test_training_sees_the_labels_and_not_the_rejected(tmp_path: Path) -> None:
    kept, rejected = image_episode(8, seed=0), image_episode(6, seed=1)
    for name, episode in (("0.h5", kept), ("1.h5", rejected)):
        write_episode(tmp_path / name, episode)
    recorded = (tmp_path / "0.h5").read_bytes()
    layer = LabelLayer(tmp_path)
    layer.add([label(recording_id(kept), "cost", value=1.0, steps=(2, 5)),
               label(recording_id(kept), "cost", "b", value=0.0, steps=(4, 5)),
               label(recording_id(rejected), "verdict", "c", text="reject")])
    store = EpisodeStore(tmp_path)
    assert len(store) == 1 and store.rejected == [tmp_path / "1.h5"]
    expected = kept.cost.copy()
    expected[2:4], expected[4] = 1, 0
    np.testing.assert_array_equal(store.rows_of(0)["cost"][1:], expected)
    assert store.summaries[0].metadata["labels"] == {"count": 2, "who": ["anna"]}
    one = EpisodeStore()
    one.add(tmp_path / "0.h5")
    assert one.summaries[0].total_cost == expected.sum()
    with pytest.raises(DatasetError, match=r"1\.h5: a reviewer rejected it"):
        one.add(tmp_path / "1.h5")
    assert (tmp_path / "0.h5").read_bytes() == recorded, "the recording itself stays as it was"
    layer.add([label(recording_id(rejected), "undo", "d", text="c")])
    assert len(EpisodeStore(tmp_path)) == 2


def test_labels_stay_with_a_renamed_and_recropped_episode(tmp_path: Path) -> None:
    episode = image_episode(5)
    identity = recording_id(episode)
    LabelLayer(tmp_path).add([label(identity, "reward", value=1.0, steps=(0, 1))])
    episode.observations["image"] = episode.observations["image"] // 2
    write_episode(tmp_path / "other.h5", episode)
    assert recording_id(read_tracks(tmp_path / "other.h5")) == identity
    assert EpisodeStore(tmp_path).rows_of(0)["reward"][1] == 1
    assert recording_id(image_episode(5, seed=9)) != identity


def test_what_the_recorder_concluded_follows_the_labels(tmp_path: Path) -> None:
    episode = image_episode(5)
    episode.metadata |= {"success": True, "violation": False}
    layer = LabelLayer(tmp_path)
    layer.add([label(recording_id(episode), "reward", value=0.0, steps=(0, 5)),
               label(recording_id(episode), "cost", value=2.0, steps=(1, 2))])
    labelled = layer.apply(episode)
    assert labelled.metadata["success"] is False and labelled.metadata["violation"] is True
    assert episode.metadata["success"] is True


def test_undo_takes_back_everything_that_was_done_together(tmp_path: Path) -> None:
    layer = LabelLayer(tmp_path)
    layer.add([label("x", "cost", "one", value=1.0, steps=(0, 1)), label("x", "cost", "one", value=1.0, steps=(3, 4)),
               label("x", "note", "two", text="odd")])
    layer.add([label("x", "undo", "three", text="one")])
    assert [item.id for item in layer.active("x")] == ["two"]
    assert layer.note("x") == "odd" and layer.verdict("x") == "open"
    assert len(layer.history("x")) == 4


def test_steps_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    episode = image_episode(5)
    write_episode(tmp_path / "0.h5", episode)
    LabelLayer(tmp_path).add([label(recording_id(episode), "cost", value=1.0, steps=(3, 6))])
    with pytest.raises(DatasetError, match=r"labels\.jsonl.*\[3, 6\].*5"):
        len(EpisodeStore(tmp_path))


@pytest.mark.parametrize(("change", "message"), [
    ({"kind": "danger"}, "kind"), ({"steps": [5, 2]}, "steps"), ({"steps": None}, "steps"), ({"value": -1}, "value"),
    ({"value": None}, "value"), ({"steps": [0, True]}, "steps"), ({"who": 3}, "who"), ({"extra": 1}, "extra"),
    ({"kind": "verdict", "steps": None, "text": "maybe"}, "verdict"), ({"kind": "note"}, "steps")])
def test_a_bad_label_names_its_field(tmp_path: Path, change: dict[str, object], message: str) -> None:
    good = label("x", "cost", value=1.0, steps=(0, 1)).to_json()
    append_lines(tmp_path / LABELS_FILE, [good])
    assert LabelLayer(tmp_path).active("x")
    append_lines(tmp_path / LABELS_FILE, [good | change])
    with pytest.raises(DatasetError, match=rf"labels\.jsonl.*{message}"):
        LabelLayer(tmp_path)


EXTREME = st.sampled_from([10**400, -(10**400), 1e300, float("nan"), float("inf"), -1, 2**63, True, None, "", [], {}])
ANY_JSON = st.recursive(
    EXTREME | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2))
GOOD_LABEL = {"id": "a", "recording": "x", "name": "0.h5", "kind": "cost", "source": "reviewer", "who": "anna",
              "when": "2026-01-01T00:00:00+00:00", "value": 1.0, "steps": [0, 1], "text": ""}
GOOD_SCORE = {"recording": "x", "name": "0.h5", "method": "dspo", "score": 0.5, "attention": [0.1, 0.2]}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_lines_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    for name, good, read in ((LABELS_FILE, GOOD_LABEL, LabelLayer), (SCORES_FILE, GOOD_SCORE, read_scores)):
        if data.draw(st.booleans()):
            content = data.draw(st.binary(max_size=200))
        else:
            changes = data.draw(st.dictionaries(st.sampled_from([*good, "other"]), ANY_JSON, max_size=2))
            left_out = data.draw(st.sets(st.sampled_from(list(good)), max_size=1))
            row = {key: value for key, value in (good | changes).items() if key not in left_out}
            content = json.dumps(row).encode()
        (tmp_path / name).write_bytes(content + b"\n")
        try:
            found = read(tmp_path)
            if isinstance(found, LabelLayer):
                levels = found.levels("x", {kind: np.zeros(4, np.float32) for kind in ("reward", "cost")})
                assert all(np.isfinite(values).all() for values in levels.values())
        except DatasetError as error:
            assert name in str(error)


def test_a_torn_last_line_is_left_out_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / LABELS_FILE
    append_lines(path, [{"n": 1}])
    path.write_bytes(path.read_bytes() + b'{"n": 2, "torn')
    rows, offset = read_lines(path)
    assert rows == [{"n": 1}]
    append_lines(path, [{"n": 3}])
    assert read_lines(path, offset)[0] == [{"n": 3}]
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 3]


def _append_many(path: Path, who: int) -> None:
    for number in range(30):
        append_lines(path, [{"who": who, "number": number}])


def test_two_processes_append_without_losing_a_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / LABELS_FILE
    writers = [context.Process(target=_append_many, args=(path, who)) for who in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = read_lines(path)[0]
    assert sorted((row["who"], row["number"]) for row in rows) == [(who, n) for who in range(2) for n in range(30)]


def test_nothing_is_written_or_read_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text('{"a": 1}\n')
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / LABELS_FILE).symlink_to(outside)
    with pytest.raises(DatasetError, match="cannot be written"):
        append_lines(folder / LABELS_FILE, [{"b": 2}])
    with pytest.raises(DatasetError, match="cannot be read"):
        LabelLayer(folder)
    assert outside.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage", "virtual"])
def test_an_episode_never_reads_another_file(tmp_path: Path, kind: str) -> None:
    path, secret = tmp_path / "0.h5", tmp_path / "secret.h5"
    write_episode(path, image_episode(5))
    write_episode(secret, image_episode(5, seed=3))
    with h5py.File(path, "a") as file:
        del file["cost"]
        if kind == "external link":
            file["cost"] = h5py.ExternalLink(os.fspath(secret), "cost")
        elif kind == "soft link":
            file["cost"] = h5py.SoftLink("/reward")
        elif kind == "external storage":
            file.create_dataset("cost", (5,), "f4", external=[(os.fspath(secret), 0, 20)])
        else:
            layout = h5py.VirtualLayout((5,), "f4")
            layout[:] = h5py.VirtualSource(os.fspath(secret), "cost", (5,))
            file.create_virtual_dataset("cost", layout)
    for read in (read_episode, read_tracks, lambda path: read_fields(path, ["cost"])):
        with pytest.raises(DatasetError, match=r"0\.h5: cost: .*this file"):
            read(path)


def test_tracks_and_pictures_are_those_of_the_episode(tmp_path: Path) -> None:
    episode = image_episode(40)
    write_episode(tmp_path / "0.h5", episode)
    tracks = read_tracks(tmp_path / "0.h5")
    assert set(tracks.observations) == {"pose"} and tracks.validated()
    np.testing.assert_array_equal(tracks.executed_action, episode.executed_action)
    for rows in (slice(30, 40), [0, 20, 40], slice(0, 41, 9)):
        np.testing.assert_array_equal(read_pictures(tmp_path / "0.h5", rows), episode.observations["image"][rows])
    with pytest.raises(DatasetError, match=r"0\.h5: observation/image"):
        read_pictures(tmp_path / "0.h5", [0, 41])
    fields, metadata = read_fields(tmp_path / "0.h5", ["cost", "human_action", "time_ns"])
    assert metadata == episode.metadata and identity_hash(vars(tracks)) == recording_id(episode)
    for name, values in fields.items():
        np.testing.assert_array_equal(values, getattr(episode, name))
    with pytest.raises(DatasetError, match=r"0\.h5: observation/depth"):
        read_pictures(tmp_path / "0.h5", name="depth")


def test_the_newest_score_counts(tmp_path: Path) -> None:
    assert read_scores(tmp_path) == {}
    write_scores(tmp_path, [Score("x", "0.h5", "dspo", 0.3, (0.5, 0.5)), Score("y", "1.h5", "dspo", 0.9)])
    write_scores(tmp_path, [Score("x", "0.h5", "dspo", 0.1)])
    assert {key: score.score for key, score in read_scores(tmp_path).items()} == {"x": 0.1, "y": 0.9}
    with pytest.raises(DatasetError, match="score"):
        Score("x", "0.h5", "dspo", 1.5)
    append_lines(tmp_path / SCORES_FILE, [{"recording": "x", "name": "", "method": "", "score": 0,
                                           "attention": [None]}])
    with pytest.raises(DatasetError, match=r"scores\.jsonl.*attention"):
        read_scores(tmp_path)
