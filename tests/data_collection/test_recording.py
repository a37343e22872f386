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
from data_collection.recording.encoding import encode_message, stamp
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
    summary = metadata[SUMMARY_RECORD]
    assert summary.pop("clocks")["published_to_received"]["/a"] == pytest.approx([1e-9] * 3)
    assert summary == {"messages": {"/a": 1, "/b": 1}, "dropped": {"/a": 0, "/b": 0}, "note": "done"}
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
    k += 1 if k != 20 else 8
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
    assert [sequence for _, _, sequence, _ in messages] == [*range(1, 21), *range(28, len(messages) + 8)], "no gap"
    assert (killed - messages[-1][1]) / 1e9 < 0.5
    assert metadata[EPISODE_RECORD] == {"task": "original"}
    summary = metadata[SUMMARY_RECORD]
    assert summary["messages"] == {"/pose": len(messages)} and summary["recovered"] is True
    assert summary["dropped"] == {"/pose": 7}, "what was counted before the crash is kept"
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


def test_recordings_left_by_a_crash_are_completed_or_put_aside_once(tmp_path, caplog):
    write_some(tmp_path / "left.mcap", 5, close=False)
    for expected in ([tmp_path / "left.mcap"], []):
        (tmp_path / "junk.mcap.part").write_bytes(b"nothing")
        assert RecordingSession(tmp_path).recover() == expected
    assert sorted(os.listdir(tmp_path)) == ["left.mcap", "quarantine"]
    assert sorted(os.listdir(tmp_path / "quarantine")) == ["1-junk.mcap.part", "junk.mcap.part"], "nothing is deleted"
    assert caplog.text.count("holds no whole message") == 2 and str(tmp_path / "quarantine") in caplog.text
    assert RecordingSession(tmp_path).recover() == [] and len(caplog.records) == 3, "told of once"


# Crashes and full disks, in processes of their own

CRASH_WHILE_RECOVERING = """
import os, signal, sys
from data_collection.recording import recover
calls, original, fatal = 0, os.replace, int(sys.argv[2])
def replace(source, target):
    global calls
    calls += 1
    if calls == abs(fatal):
        if fatal > 0: original(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    original(source, target)
os.replace = replace
recover(sys.argv[1])
"""


@pytest.mark.parametrize("fatal", [-1, 1, -2, 2])
def test_a_crash_while_it_recovers_loses_nothing(tmp_path, fatal):
    """Killed just before (-) and just after (+) the first and the second change of a name."""
    write_some(tmp_path / "a.mcap", 50, close=False)
    command = [sys.executable, "-c", CRASH_WHILE_RECOVERING, str(tmp_path / "a.mcap.part"), str(fatal)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    session = RecordingSession(tmp_path)
    assert session.recover() == ([] if fatal == 2 else [tmp_path / "a.mcap"])
    messages, metadata = read(tmp_path / "a.mcap")
    assert [sequence for _, _, sequence, _ in messages] == list(range(1, 51))
    assert metadata[SUMMARY_RECORD]["recovered"] is True
    assert os.listdir(tmp_path) == ["a.mcap"]


POWER_CUT = """
import os, sys, time
from data_collection.recording import McapEpisodeWriter
original, log = os.fsync, open(sys.argv[2], "w")
def fsync(descriptor):
    size = os.fstat(descriptor).st_size
    original(descriptor)
    print(descriptor, size, file=log, flush=True)
os.fsync = fsync
writer = McapEpisodeWriter(sys.argv[1], {})
print(writer._file.fileno(), flush=True)
k = 0
while True:
    k += 1
    writer.write("/pose", "geometry_msgs/msg/PoseStamped", os.urandom(500), time.time_ns(), sequence=k)
    time.sleep(0.01)
"""


def test_a_power_cut_loses_less_than_a_second(tmp_path):
    """What the disk was not yet told to keep is taken away; zeros stand where it would have been, as after a crash."""
    path, log = tmp_path / "a.mcap", tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", POWER_CUT, str(path), str(log)], stdout=subprocess.PIPE)
    descriptor = int(process.stdout.readline())
    time.sleep(2.3)
    cut = time.time_ns()
    process.kill()
    process.wait(10)
    process.stdout.close()
    part = tmp_path / "a.mcap.part"
    kept = [int(size) for number, size in (line.split() for line in log.read_text().splitlines())
            if int(number) == descriptor][-1]
    os.truncate(part, kept)
    os.truncate(part, kept + 5000)
    result = recover(part)
    messages, _ = read(path)
    assert result.messages == len(messages) and [m[2] for m in messages] == list(range(1, len(messages) + 1))
    assert (cut - messages[-1][1]) / 1e9 < 1.0


FULL_DISK = """
import json, logging, os, subprocess, sys
from pathlib import Path
from data_collection.recording.session import RecordingSession, Sample
logging.disable()
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
def record(name, count):
    session = RecordingSession(folder)
    session.begin(name, {})
    for k in range(count):
        session.add(Sample("/image", "sensor_msgs/msg/Image", os.urandom(1000), 10**9 * k, k, k + 1))
    return session.finish()
first = record("first", 300)
(folder / "other").write_bytes(bytes(400_000))
second = record("second", 900)
while_full = RecordingSession(folder).recover()
(folder / "other").unlink()
again = [str(path) for path in RecordingSession(folder).recover()]
third = record("third", 50)
from mcap.reader import make_reader
counts = {path.name: [m.sequence for _, _, m in make_reader(path.open("rb"), validate_crcs=True).iter_messages()]
          for path in sorted(folder.glob("*.mcap"))}
print(json.dumps([str(first.path), second.error, len(while_full), again, str(third.path), counts]))
"""


@pytest.mark.skipif(subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False,
                                   capture_output=True).returncode != 0, reason="may not mount a small disk here")
def test_a_disk_that_is_really_full(tmp_path):
    command = ["unshare", "-rm", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    first, error, while_full, again, third, counts = json.loads(run.stdout)
    assert first.endswith("first.mcap") and "No space left on device" in error and "second.mcap.part" in error
    assert while_full == 0, "a copy has no room; the file stays"
    assert again == [str(tmp_path / "second.mcap")] and third.endswith("third.mcap")
    assert counts["first.mcap"] == list(range(1, 301)), "a finished one is never lost"
    assert counts["second.mcap"] == list(range(1, len(counts["second.mcap"]) + 1)) and len(counts["second.mcap"]) > 200
    assert counts["third.mcap"] == list(range(1, 51))


# Clocks


def test_offsets_of_clocks_are_stored(tmp_path):
    writer = McapEpisodeWriter(tmp_path / "a.mcap", {})
    for k, delay in enumerate((0.25, 0.26, 0.27)):
        now = 1_700_000_000_000_000_000 + k * 10**9
        data = encode_message(POSE, {"header": {"stamp": stamp(now - int(delay * 1e9))}})
        writer.write("/pose", POSE, data, now, now - 2_000_000)
    writer.write("/joint", "std_msgs/msg/String", encode_message("std_msgs/msg/String", {"data": "x" * 20}), 5, 5)
    writer.clocks.look(10_000_000_000, 1_000_000_000)
    writer.clocks.look(9_500_000_000, 1_100_000_000)  # somebody set the clock back
    _, metadata = read(writer.close())
    clocks = metadata[SUMMARY_RECORD]["clocks"]
    assert clocks["published_to_received"] == {"/pose": pytest.approx([0.002] * 3), "/joint": [0, 0, 0]}
    assert clocks["stamped_to_received"] == {"/pose": pytest.approx([0.25, 0.26, 0.27])}
    assert clocks["system_minus_steady"] == pytest.approx(9.0)
    assert clocks["system_step"] == pytest.approx(-0.6)
