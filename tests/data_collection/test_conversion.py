"""Training files hold exactly what was published; a recording that is not whole is refused by name."""

import json
import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.records import Schema
from mcap_ros2.decoder import DecoderFactory

from data_collection.benchmark import CONTROL_PERIOD_NS, START_NS, example_messages, example_metadata, record_example
from data_collection.commands import Convert
from data_collection.conversion import IMAGE_TOPIC, STEP_TOPIC, convert_file, fit_image, mcap_to_episode
from data_collection.pixels import rgb_from_bytes
from data_collection.recording import McapEpisodeWriter, message_definition
from safe_policy_core.data.episodes import read_episode
from safe_policy_core.errors import DatasetError, SpecError
from safe_policy_core.interfaces import Specs

STEPS = 12


def record(path, change=lambda rows: rows, metadata=None, close=True):
    """The example episode with its messages passed through `change`."""
    writer = McapEpisodeWriter(path, example_metadata() if metadata is None else metadata)
    for topic, kind, data, time_ns, sequence in change(example_messages(STEPS, 64, 64, seed=1)):
        writer.write(topic, kind, data, time_ns, sequence=sequence)
    if close:
        writer.close()
    else:
        writer.abort()
    return path


def published(topic):
    """Decoded messages of the example episode."""
    found = [(kind, data) for name, kind, data, _, _ in example_messages(STEPS, 64, 64, seed=1) if name == topic]
    schema = Schema(id=1, name=found[0][0], encoding="ros2msg", data=message_definition(found[0][0]).encode())
    decode = DecoderFactory().decoder_for("cdr", schema)
    return [decode(data) for _, data in found]


def without(topic, *indices):
    """A change that leaves out some messages of a topic, all of them by default."""
    def change(rows):
        ours = [row for row in rows if row[0] == topic]
        gone = {id(ours[i]) for i in indices} if indices else {id(row) for row in ours}
        return [row for row in rows if id(row) not in gone]
    return change


def test_the_episode_is_what_was_published(tmp_path):
    path, episode = convert_file(record(tmp_path / "a.mcap"))
    steps, images = published(STEP_TOPIC), {}
    for m in published(IMAGE_TOPIC):
        images[m.header.stamp.sec * 10**9 + m.header.stamp.nanosec] = np.frombuffer(m.data, np.uint8).reshape(64, 64, 3)
    assert len(episode) == STEPS
    assert episode.time_ns.tolist() == [START_NS + k * CONTROL_PERIOD_NS for k in range(STEPS + 1)]
    for row, time in enumerate(episode.time_ns.tolist()):
        np.testing.assert_array_equal(episode.observations["image"][row], images[time])
    poses = [s.pose for s in steps] + [steps[-1].next_pose]
    np.testing.assert_array_equal(episode.observations["pose"], np.array(poses, np.float32))
    for name, field in (("executed_action",) * 2, ("policy_action", "requested_action"), ("human_action",) * 2,
                        ("reward",) * 2, ("cost",) * 2, ("intervention",) * 2, ("terminated",) * 2,
                        ("truncated",) * 2):
        np.testing.assert_array_equal(getattr(episode, name), np.array([getattr(s, field) for s in steps]), name)
    assert episode.filter_reason == [s.filter_reason for s in steps]
    assert episode.terminated[-1] and not episode.metadata["interrupted"]
    assert episode.metadata["task"] == "original" and episode.metadata["replaced_images"] == 0
    again = read_episode(path)
    np.testing.assert_array_equal(again.observations["image"], episode.observations["image"])
    assert path == tmp_path / "a.h5" and again.metadata == episode.metadata


def test_dropped_messages_and_clock_offsets_are_in_the_metadata(tmp_path):
    episode = mcap_to_episode(record(tmp_path / "a.mcap", without("/franka/current_pose", 3, 4, 9)))
    assert episode.metadata["dropped"]["/franka/current_pose"] == 3
    assert episode.metadata["dropped"][IMAGE_TOPIC] == 0
    # A step is received when it ends, with the stamp of its beginning.
    assert episode.metadata["clocks"]["stamped_to_received"][STEP_TOPIC] == pytest.approx([0.1] * 3)


def test_a_missing_picture_is_replaced_by_its_neighbour_and_counted(tmp_path, caplog):
    # Three pictures a step: the tenth is that of observation 3, and the next one 33.333333 ms later is the nearest.
    with caplog.at_level(logging.WARNING):
        episode = mcap_to_episode(record(tmp_path / "a.mcap", without(IMAGE_TOPIC, 9)))
    assert episode.metadata["replaced_images"] == 1
    assert "observation 3" in caplog.text
    neighbour = np.frombuffer(published(IMAGE_TOPIC)[10].data, np.uint8).reshape(64, 64, 3)
    np.testing.assert_array_equal(episode.observations["image"][3], neighbour)


def test_a_hole_in_the_pictures_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=rf"a\.mcap: {IMAGE_TOPIC}: no picture within 0\.06 s of observation 3"):
        mcap_to_episode(record(tmp_path / "a.mcap", without(IMAGE_TOPIC, *range(7, 13))))


@pytest.mark.parametrize("topic", [STEP_TOPIC, IMAGE_TOPIC])
def test_a_missing_topic_is_named(tmp_path, topic):
    with pytest.raises(DatasetError, match=rf"a\.mcap: {topic}: no messages; recorded are .*current_pose"):
        mcap_to_episode(record(tmp_path / "a.mcap", without(topic)))


@pytest.mark.parametrize(("indices", "expected"), [((0,), "expected 0, got 1"), ((5,), "expected 5, got 6")])
def test_a_missing_step_is_named(tmp_path, indices, expected):
    with pytest.raises(DatasetError, match=f"{STEP_TOPIC} index: {expected}"):
        mcap_to_episode(record(tmp_path / "a.mcap", without(STEP_TOPIC, *indices)))


def test_an_episode_cut_short_ends_truncated(tmp_path):
    episode = mcap_to_episode(record(tmp_path / "a.mcap", without(STEP_TOPIC, STEPS - 2, STEPS - 1)))
    assert len(episode) == STEPS - 2
    assert episode.truncated[-1] and not episode.terminated.any() and episode.metadata["interrupted"]


@pytest.mark.parametrize(("metadata", "expected"), [({}, "metadata specs: missing"),
                                                    ({"specs": {"observation": {}}}, "metadata specs")])
def test_missing_specs_are_named(tmp_path, metadata, expected):
    with pytest.raises(DatasetError, match=expected):
        mcap_to_episode(record(tmp_path / "a.mcap", metadata=metadata))


def test_a_missing_or_unfinished_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing\.mcap: no such recording"):
        mcap_to_episode(tmp_path / "nothing.mcap")
    record(tmp_path / "a.mcap", close=False)
    with pytest.raises(DatasetError, match=r"a\.mcap\.part: an unfinished recording"):
        mcap_to_episode(tmp_path / "a.mcap.part")


class Whole(tuple):
    def __repr__(self):
        return "(content, episode)"  # hypothesis would print all of it


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = record(tmp_path_factory.mktemp("whole") / "a.mcap")
    return Whole((path.read_bytes(), mcap_to_episode(path)))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_truncated_file_is_refused_by_name(whole, tmp_path, data):
    content = whole[0]
    path = tmp_path / "cut.mcap"
    path.write_bytes(content[:data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DatasetError, match=r"cut\.mcap: "):
        mcap_to_episode(path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_is_noticed_or_harmless(whole, tmp_path, data):
    content, episode = whole
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "flipped.mcap"
    path.write_bytes(changed)
    try:
        found = mcap_to_episode(path)
    except DatasetError as error:
        assert "flipped.mcap" in str(error) and "\n" not in str(error)
        return
    # Checksums cover messages and metadata; what is left are bytes that nobody reads.
    np.testing.assert_array_equal(found.observations["image"], episode.observations["image"])
    np.testing.assert_array_equal(found.executed_action, episode.executed_action)


# Pictures


def test_size_and_crop(tmp_path):
    path = tmp_path / "big.mcap"
    record_example(path, steps=3, height=48, width=64)
    episode = mcap_to_episode(path, image_size=(24, 32))
    assert episode.observations["image"].shape == (4, 24, 32, 3)
    assert Specs.from_json(episode.metadata["specs"]).observation["image"].shape == (24, 32, 3)
    cropped = mcap_to_episode(path, image_size=(16, 16), crop=(4, 8, 16, 16)).observations["image"]
    full = mcap_to_episode(path, image_size=(48, 64)).observations["image"]
    np.testing.assert_array_equal(cropped, full[:, 4:20, 8:24])
    with pytest.raises(DatasetError, match="crop"):
        mcap_to_episode(path, crop=(40, 0, 16, 16))


def test_shrinking_averages_and_keeps_the_proportions():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 16
    expected = image[:, 2:6].reshape(2, 2, 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(fit_image(image, (2, 2)), expected, atol=0.5)
    assert fit_image(image, (4, 8)) is not None and np.array_equal(fit_image(image, (4, 8)), image)
    with pytest.raises(SpecError, match="crop"):
        fit_image(image, (2, 2), crop=(0, 0, 5, 5))


@given(height=st.integers(1, 8), width=st.integers(1, 8), padding=st.integers(0, 5),
       encoding=st.sampled_from(["rgb8", "bgr8"]), seed=st.integers(0, 9))
def test_bytes_to_pixels(height, width, padding, encoding, seed):
    image = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    wire = image[..., ::-1] if encoding == "bgr8" else image
    rows = np.concatenate([wire.reshape(height, -1), np.zeros((height, padding), np.uint8)], 1)
    np.testing.assert_array_equal(rgb_from_bytes(rows.tobytes(), height, width, width * 3 + padding, encoding), image)


@given(data=st.binary(max_size=40), height=st.integers(-1, 5), width=st.integers(-1, 5), step=st.integers(-1, 20),
       encoding=st.sampled_from(["rgb8", "bgr8", "mono8", ""]))
def test_nonsense_is_refused(data, height, width, step, encoding):
    try:
        image = rgb_from_bytes(data, height, width, step, encoding)
    except ValueError:
        return
    assert image.shape == (height, width, 3) and len(data) == height * step


# safe-policy convert


def test_convert_takes_files_and_folders_and_recovers(tmp_path):
    record(tmp_path / "in" / "one.mcap")
    record(tmp_path / "in" / "two.mcap", close=False)
    record(tmp_path / "three.mcap")
    result = Convert((tmp_path / "in", tmp_path / "three.mcap"), out=tmp_path / "out").run()
    assert result["count"] == 3 and result["steps"] == 3 * STEPS
    assert json.loads(json.dumps(result)) == result
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.h5", "three.h5", "two.h5"]
    assert read_episode(tmp_path / "out" / "two.h5").metadata["recovered"]


def test_convert_converts_what_it_can_and_names_the_rest(tmp_path, caplog):
    record(tmp_path / "good.mcap")
    (tmp_path / "bad.mcap").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"1 of 2 recordings not converted: .*bad\.mcap"):
        Convert((tmp_path,)).run()
    assert len(read_episode(tmp_path / "good.h5")) == STEPS
    (tmp_path / "red\x1b[31m.mcap").write_bytes(b"nonsense")
    with pytest.raises(DatasetError, match=r"2 of 3 recordings not converted: .*bad\.mcap; .*red"):
        Convert((tmp_path,)).run()
    assert "red\\x1b[31m.mcap: truncated" in caplog.text and "\x1b" not in caplog.text


def test_convert_of_nothing_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="no recordings"):
        Convert((tmp_path,)).run()
    with pytest.raises(DatasetError, match="no such recording or folder"):
        Convert((tmp_path / "missing",)).run()
