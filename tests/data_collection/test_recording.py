"""Recordings survive what happens to them: kills, full disks, damage; and count what they miss."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from data_collection.recording import McapEpisodeWriter, message_definition, recover, unfinished
from data_collection.recording.encoding import encode_message
from data_collection.recording.session import RecordingSession, Sample
from data_collection.recording.writer import EPISODE_RECORD, SUMMARY_RECORD
from safe_policy_core.errors import ConfigurationError, DatasetError

POSE = "geometry_msgs/msg/PoseStamped"
DATA = encode_message(POSE, {"header": {"frame_id": "fr3_link0"}})


def read_messages(path):
    """[(topic, log time, sequence, data)]"""
    with open(path, "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        return [(channel.topic, m.log_time, m.sequence, m.data) for _, channel, m in reader.iter_messages()]


def read(path):
    """Messages, and metadata by name."""
    with open(path, "rb") as file:
        metadata = {record.name: json.loads(record.metadata["json"])
                    for record in make_reader(file, validate_crcs=True).iter_metadata()}
    return read_messages(path), metadata


def write_some(path, count, close=True):
    writer = McapEpisodeWriter(path, {"task": "original"})
    for k in range(count):
        writer.write("/pose", POSE, DATA, k, sequence=k + 1)
    if close:
        writer.close()
    else:
        writer.abort()
    return writer


# Message definitions


def test_definitions_hold_every_nested_type():
    text = message_definition("safe_policy_interfaces/msg/GateStatus")
    for name in ("std_msgs/Header", "geometry_msgs/Pose", "geometry_msgs/Point", "geometry_msgs/Quaternion"):
        assert f"MSG: {name}\n" in text
    assert text.startswith("# What the safety gate decided")


def test_an_unknown_type_is_named():
    with pytest.raises(ConfigurationError, match=r"nowhere_msgs/msg/Nothing.*source the ROS workspace"):
        message_definition("nowhere_msgs/msg/Nothing")
    with pytest.raises(ConfigurationError, match="expected package/msg/Name"):
        message_definition("Nothing")


# The writer


def test_messages_and_metadata_come_back_as_they_were(tmp_path):
    writer = McapEpisodeWriter(tmp_path / "new folder" / "a.mcap", {"task": "original", "seed": 7})
    assert writer.part.exists() and not writer.path.exists()
    writer.write("/a", POSE, b"one", 10, 9, sequence=1)
    writer.write("/b", POSE, b"two", 20, 19, sequence=1)
    path = writer.close({"note": "done"})
    messages, metadata = read(path)
    assert messages == [("/a", 10, 1, b"one"), ("/b", 20, 1, b"two")]
    assert metadata[EPISODE_RECORD] == {"task": "original", "seed": 7}
    assert metadata[SUMMARY_RECORD] == {"messages": {"/a": 1, "/b": 1}, "dropped": {"/a": 0, "/b": 0}, "note": "done"}
    assert os.listdir(path.parent) == ["a.mcap"]


def test_gaps_in_a_publishers_sequence_are_counted(tmp_path):
    writer = McapEpisodeWriter(tmp_path / "a.mcap", {})
    for sequence, publisher in ((5, "x"), (6, "x"), (9, "x"), (1, "y"), (10, "x"), (3, "y"),
                                (1, "x"), (2, "x"), (0, "x"), (0, "x")):
        writer.write("/a", POSE, DATA, 0, sequence=sequence, publisher=publisher)
    # 7 and 8 of x, 2 of y; x starting again at 1 lost nothing, and 0 means that nobody counts.
    assert writer.dropped == 3
    writer.close()


def test_an_existing_recording_is_not_overwritten(tmp_path):
    write_some(tmp_path / "a.mcap", 3)
    with pytest.raises(FileExistsError):
        McapEpisodeWriter(tmp_path / "a.mcap", {})


def test_writing_after_the_end_is_refused(tmp_path):
    writer = write_some(tmp_path / "a.mcap", 1)
    with pytest.raises(ValueError, match="closed"):
        writer.write("/pose", POSE, DATA, 0)
    writer.abort()
    assert writer.path.exists()


RECORD_FOR_EVER = """
import sys, time
from data_collection.recording import McapEpisodeWriter
writer = McapEpisodeWriter(sys.argv[1], {"task": "original"})
data = bytes(500)
print("started", flush=True)
k = 0
while True:
    k += 1
    writer.write("/pose", "geometry_msgs/msg/PoseStamped", data, time.time_ns(), sequence=k)
    time.sleep(0.01)
"""


def record_and(number, path, seconds):
    """Records 100 messages/s in another process and sends it a signal. Returns when that was [ns]."""
    process = subprocess.Popen([sys.executable, "-c", RECORD_FOR_EVER, str(path)], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(seconds)
    assert unfinished(path.parent) == [], "a file that is being written is not for recovery"
    with pytest.raises(DatasetError, match="still being written"):
        recover(path.with_name(path.name + ".part"))
    when = time.time_ns()
    process.send_signal(number)
    process.wait(10)
    process.stdout.close()
    return when


def test_a_killed_recording_loses_less_than_half_a_second(tmp_path):
    path = tmp_path / "a.mcap"
    killed = record_and(signal.SIGKILL, path, 2.0)
    assert not path.exists()
    (part,) = unfinished(tmp_path)
    result = recover(part)
    messages, metadata = read(path)
    assert result.path == path and result.messages == len(messages)
    assert [sequence for _, _, sequence, _ in messages] == list(range(1, len(messages) + 1)), "no gap"
    assert (killed - messages[-1][1]) / 1e9 < 0.5
    assert metadata[EPISODE_RECORD] == {"task": "original"}
    assert metadata[SUMMARY_RECORD] == {"messages": {"/pose": len(messages)}, "recovered": True}
    assert not part.exists()


def test_recovery_of_nothing_says_so(tmp_path):
    write_some(tmp_path / "empty.mcap", 0, close=False)
    with pytest.raises(DatasetError, match=r"empty\.mcap\.part: holds no whole message"):
        recover(tmp_path / "empty.mcap.part")
    with pytest.raises(DatasetError, match="no such file"):
        recover(tmp_path / "missing.mcap.part")
    with pytest.raises(DatasetError, match="expected an unfinished recording"):
        recover(tmp_path / "other.txt")
    write_some(tmp_path / "twice.mcap", 3, close=False)
    shutil.copy(tmp_path / "twice.mcap.part", tmp_path / "twice.mcap")
    with pytest.raises(DatasetError, match="exists already"):
        recover(tmp_path / "twice.mcap.part")
    assert sorted(os.listdir(tmp_path)) == ["empty.mcap.part", "twice.mcap", "twice.mcap.part"]


class Whole(tuple):
    def __repr__(self):
        return "(content, messages)"  # hypothesis would print all of it


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.mcap"
    write_some(path, 200)
    return Whole((path.read_bytes(), read_messages(path)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_recovered_from_damage_is_part_of_what_was_written(whole, tmp_path, data):
    content, messages = whole
    content = bytearray(content[:data.draw(st.integers(0, len(content)), label="length")])
    cut_only = data.draw(st.booleans(), label="cut only") or not content
    for _ in range(0 if cut_only else data.draw(st.integers(1, 2), label="flips")):
        content[data.draw(st.integers(0, len(content) - 1), label="at")] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "a.mcap"
    path.unlink(missing_ok=True)
    (tmp_path / "a.mcap.part").write_bytes(content)
    try:
        result = recover(tmp_path / "a.mcap.part")
    except DatasetError:
        assert not path.exists()
        return
    found = [message[1:] for message in read_messages(path)]
    assert len(found) == result.messages
    if cut_only:
        assert found == [message[1:] for message in messages[:len(found)]], "a beginning, without a hole"
    else:
        # A damaged chunk may fall out of the middle; what is left is unaltered and in order.
        assert found == [messages[sequence - 1][1:] for _, sequence, _ in found]
        assert [sequence for _, sequence, _ in found] == sorted({sequence for _, sequence, _ in found})


def test_a_full_disk_is_told_and_what_was_written_is_kept(tmp_path):
    """The kernel refuses to let the file grow; a real disk that is full gives the same error at the same place."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    session = RecordingSession(tmp_path)
    session.begin("full", {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        for k in range(400):
            session.add(Sample("/image", "sensor_msgs/msg/Image", os.urandom(1000), k, k))
        recorded = session.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert recorded.path is None
    assert "File too large" in recorded.error and "full.mcap.part" in recorded.error
    (part,) = unfinished(tmp_path)
    assert recover(part).messages > 50


# The session


def sample(k, topic="/pose"):
    return Sample(topic, POSE, DATA, k * 10_000_000, k * 10_000_000, k + 1)


def test_the_last_second_before_an_episode_and_the_tail_after_it_are_recorded(tmp_path):
    session = RecordingSession(tmp_path, preroll=0.1, tail=0.2)
    for k in range(50):
        session.add(sample(k))
    session.begin("one", {"task": "original"})
    for k in range(50, 60):
        session.add(sample(k))
    session.end(now=5.0)
    session.add(sample(60))
    assert not session.due(5.1) and session.due(5.21)
    recorded = session.finish()
    session.add(sample(61))
    messages, metadata = read(recorded.path)
    assert [time_ns // 10_000_000 for _, time_ns, _, _ in messages] == list(range(39, 61))
    assert metadata[EPISODE_RECORD] == {"task": "original", "episode_id": "one"}
    assert session.finish() is None
    session.begin("two", {})
    messages, _ = read(session.finish().path)
    assert [time_ns // 10_000_000 for _, time_ns, _, _ in messages] == list(range(51, 62)), "also from within the last"


def test_steps_belong_to_the_episode_they_were_published_in(tmp_path):
    session = RecordingSession(tmp_path, own_topics={"/step"})
    for k in (1, 3):  # before and after the announcement at 20 ms, both come before it
        session.add(sample(k, "/step"))
        session.add(sample(k, "/pose"))
    session.begin("one", {}, announced_ns=20_000_000)
    session.add(sample(2, "/step"))
    session.add(Sample("/step", POSE, DATA, 50_000_000, 19_000_000))
    messages, _ = read(session.finish().path)
    assert [(topic, time_ns // 10_000_000) for topic, time_ns, _, _ in messages] == [
        ("/pose", 1), ("/step", 2), ("/step", 3), ("/pose", 3)]


def test_a_folder_that_cannot_be_written_is_told_at_the_end(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    session = RecordingSession(tmp_path)
    session.begin("one", {}, tmp_path / "file" / "below")
    session.add(sample(0))
    recorded = session.finish()
    assert recorded.path is None and "file/below" in recorded.error
    session.begin("two", {})
    session.add(sample(1))
    assert session.finish().path == tmp_path / "two.mcap", "the next episode is recorded"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 300])
def test_a_name_that_is_a_path_is_refused(tmp_path, name):
    session = RecordingSession(tmp_path / "here")
    session.begin(name, {})
    assert "episode_id" in session.finish().error
    assert not list(tmp_path.rglob("*.mcap*"))


def test_equal_names_do_not_collide(tmp_path):
    session = RecordingSession(tmp_path)
    paths = []
    for _ in range(3):
        session.begin("same", {})
        session.add(sample(0))
        paths.append(session.finish().path.name)
    assert paths == ["same.mcap", "same-1.mcap", "same-2.mcap"]


def test_recordings_left_by_a_crash_are_completed_once(tmp_path):
    write_some(tmp_path / "left.mcap", 5, close=False)
    (tmp_path / "junk.mcap.part").write_bytes(b"nothing")
    session = RecordingSession(tmp_path)
    assert session.recover() == [tmp_path / "left.mcap"]
    assert (tmp_path / "junk.mcap.part").exists(), "what cannot be read is left for a person to look at"
    assert session.recover() == []
