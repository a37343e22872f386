"""Bags that this project did not record become episodes: as `ros2 bag record` and realsense-ros make them."""

import contextlib
import sqlite3
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, Writer

from data_collection.benchmark import CONTROL_PERIOD_NS, START_NS, example_messages, example_metadata
from data_collection.commands import Convert
from data_collection.conversion.bag import BagOptions, bag_episodes, bag_files
from data_collection.conversion.sqlite_recording import SqliteRecording
from data_collection.recording import McapEpisodeWriter, message_definition
from data_collection.recording.encoding import encode_message, stamp
from safe_policy_core.data.episode_file import read_episode
from safe_policy_core.errors import DatasetError

IMAGE, POSE = "/camera/camera/color/image_raw", "/franka/current_pose"
SECONDS, SPEED = 2.0, 0.1
"""[s], [m/s] along x."""


def write_bag(path, rows, compression=CompressionType.ZSTD, chunk_size=1 << 20):
    """A file as rosbag2's MCAP storage writes it: profile ros2, large zstd chunks, no metadata of ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        writer = Writer(file, chunk_size=chunk_size, compression=compression)
        writer.start(profile="ros2", library="libmcap 1.4.0")
        schemas, channels = {}, {}
        for topic, kind, data, time_ns in rows:
            if kind not in schemas:
                schemas[kind] = writer.register_schema(kind, "ros2msg", message_definition(kind).encode())
            if topic not in channels:
                channels[topic] = writer.register_channel(topic, "cdr", schemas[kind])
            writer.add_message(channels[topic], time_ns, data, time_ns)
        writer.finish()
    (path.parent / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  storage_identifier: mcap\n")
    return path


def write_sqlite_bag(path, rows, definitions=False):
    """A file as rosbag2's SQLite storage writes it; message definitions are in it from ROS 2 Iron on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript("""
            CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
            CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
            CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
                serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);
            CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
                encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
            CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
                data BLOB NOT NULL);
            CREATE INDEX timestamp_idx ON messages (timestamp ASC);""")
        if not definitions:
            database.execute("DROP TABLE message_definitions")
        topics = {}
        for topic, kind, data, time_ns in rows:
            if topic not in topics:
                topics[topic] = database.execute("INSERT INTO topics VALUES (NULL, ?, ?, 'cdr', '')",
                                                 (topic, kind)).lastrowid
                if definitions:
                    database.execute("INSERT INTO message_definitions VALUES (NULL, ?, 'ros2msg', ?, '')",
                                     (kind, message_definition(kind)))
            database.execute("INSERT INTO messages VALUES (NULL, ?, ?, ?)", (topics[topic], time_ns, data))
    (path.parent / "metadata.yaml").write_text("rosbag2_bagfile_information:\n  storage_identifier: sqlite3\n")
    return path


STORAGES = {"mcap": write_bag, "db3": write_sqlite_bag}


def picture(index):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :, 0] = index
    return image


def realsense_rows(compressed=False, image_topic=IMAGE, hole=(9.0, 9.0)):
    """30 Hz pictures whose red is their number, a moving tool at 100 Hz; nothing in the seconds of `hole`."""
    rows = []
    for index in range(int(SECONDS * 30) + 1):
        time = START_NS + index * 1_000_000_000 // 30
        if hole[0] <= (time - START_NS) / 1e9 < hole[1]:
            continue
        header = {"stamp": stamp(time), "frame_id": "camera_color_optical_frame"}
        if compressed:
            data = cv2.imencode(".png", picture(index)[..., ::-1])[1].tobytes()
            kind, fields = "sensor_msgs/msg/CompressedImage", {"header": header, "format": "rgb8; png", "data": data}
        else:
            kind, fields = "sensor_msgs/msg/Image", {
                "header": header, "height": 48, "width": 64, "encoding": "rgb8", "step": 192,
                "data": picture(index).tobytes()}
        rows.append((image_topic, kind, encode_message(kind, fields), time + 4_000_000))
    for index in range(int(SECONDS * 100) + 1):
        time = START_NS + index * 10_000_000
        pose = {"position": {"x": 0.4 + SPEED * index / 100, "y": 0.0, "z": 0.1},
                "orientation": {"x": 1.0, "y": 0.0, "z": 0.0, "w": 0.0}}
        rows.append((POSE, "geometry_msgs/msg/PoseStamped", encode_message("geometry_msgs/msg/PoseStamped", {
            "header": {"stamp": stamp(time), "frame_id": "fr3_link0"}, "pose": pose}), time + 1_000_000))
    return sorted(rows, key=lambda row: row[3])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_of_realsense_ros_and_a_pose(tmp_path, compressed, storage):
    topic = IMAGE + "/compressed" * compressed
    STORAGES[storage](tmp_path / "bag" / f"bag_0.{storage}", realsense_rows(compressed, topic))
    result = Convert((tmp_path / "bag",), out=tmp_path / "out", image_size=(48, 64)).run()
    assert result["count"] == 1
    episode = read_episode(tmp_path / "out" / "bag-0000.h5")
    assert len(episode) == 20 and episode.metadata["labels"] == "none" and episode.metadata["image_topic"] == topic
    # Every tenth of a second the third picture; the tool goes 1 cm a step of 1.5 cm.
    np.testing.assert_array_equal(episode.observations["image"][:, 0, 0, 0], np.arange(21) * 3)
    np.testing.assert_allclose(episode.observations["pose"][:, 0], 0.4 + 0.01 * np.arange(21), atol=1e-6)
    np.testing.assert_allclose(episode.observations["pose"][:, 3:], 0, atol=1e-6)
    np.testing.assert_allclose(episode.executed_action, [[2 / 3, 0, 0, 0, 0, 0]] * 20, atol=1e-4)
    assert episode.truncated[-1] and not episode.terminated.any()


def test_a_hole_ends_an_episode_and_the_next_begins_after_it(tmp_path):
    write_bag(tmp_path / "bag_0.mcap", realsense_rows(hole=(0.75, 1.35)))
    first, second = (episode for _, episode in bag_episodes([tmp_path / "bag_0.mcap"]))
    assert (first.time_ns[-1] - START_NS) / 1e9 < 0.95 and (second.time_ns[0] - START_NS) / 1e9 >= 1.35


def test_split_bags_are_read_in_the_order_of_their_numbers(tmp_path):
    rows = realsense_rows()
    for index in range(11):
        part = rows[index * len(rows) // 11:(index + 1) * len(rows) // 11]
        write_bag(tmp_path / "bag" / f"bag_{index}.mcap", part)
    [(name, episode)] = bag_episodes(bag_files(tmp_path / "bag"))
    assert name == "bag-0000" and len(episode) == 20


@pytest.mark.parametrize("storage", STORAGES)
def test_ros2_bag_on_our_own_graph(tmp_path, storage):
    """The recorder's metadata is missing, the specs come from the episode's announcement."""
    import json

    rows = [(topic, kind, data, time) for topic, kind, data, time, _ in example_messages(12, 64, 64, seed=1)]
    metadata = example_metadata()
    state = {"header": {"stamp": stamp(START_NS)}, "phase": 2, "episode_id": "original-teleop-7", "task": "original",
             "seed": 7, "operator_name": "anna", "metadata_json": json.dumps({"specs": metadata["specs"]})}
    rows.insert(0, ("/episode/state", "safe_policy_interfaces/msg/EpisodeState",
                    encode_message("safe_policy_interfaces/msg/EpisodeState", state), START_NS))
    [(name, episode)] = bag_episodes([STORAGES[storage](tmp_path / f"bag_0.{storage}", rows)])
    writer = McapEpisodeWriter(tmp_path / "ours.mcap", metadata)
    for topic, kind, data, time, sequence in example_messages(12, 64, 64, seed=1):
        writer.write(topic, kind, data, time, sequence=sequence)
    writer.close()
    Convert((tmp_path / "ours.mcap",)).run()
    ours = read_episode(tmp_path / "ours.h5")
    assert name == "original-teleop-7" and episode.metadata["operator"] == "anna" and episode.metadata["seed"] == 7
    np.testing.assert_array_equal(episode.observations["image"], ours.observations["image"])
    np.testing.assert_array_equal(episode.executed_action, ours.executed_action)
    assert episode.time_ns[1] - episode.time_ns[0] == CONTROL_PERIOD_NS


def test_missing_and_ambiguous_topics_are_named(tmp_path):
    rows = realsense_rows()
    no_pose = write_bag(tmp_path / "a_0.mcap", [row for row in rows if row[0] == IMAGE])
    with pytest.raises(DatasetError, match=r"pose_topic: expected one topic .* found none; name it with --bag.pose-to"):
        list(bag_episodes([no_pose]))
    two = write_bag(tmp_path / "b_0.mcap", rows + [("/other/color/image_raw", *row[1:]) for row in rows
                                                   if row[0] == IMAGE])
    with pytest.raises(DatasetError, match="image_topic: expected one topic"):
        list(bag_episodes([two]))
    assert len(list(bag_episodes([two], options=BagOptions(image_topic=IMAGE)))) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="ros2 bag convert"):
        bag_files(tmp_path / "empty")


@pytest.mark.parametrize("compression", list(CompressionType))
def test_every_compression_gives_the_same(tmp_path, compression):
    rows = realsense_rows()
    [(_, expected)] = bag_episodes([write_bag(tmp_path / "a" / "bag_0.mcap", rows)])
    [(_, found)] = bag_episodes([write_bag(tmp_path / "b" / "bag_0.mcap", rows, compression, 4096)])
    np.testing.assert_array_equal(found.observations["image"], expected.observations["image"])


RECORD_WITH_LIBREALSENSE = """
import sys, time
import numpy as np
import pyrealsense2 as rs
stream = rs.video_stream()
stream.type, stream.uid, stream.width, stream.height, stream.fps = rs.stream.color, 1, 64, 48, 30
stream.bpp, stream.fmt = 3, rs.format.rgb8
stream.intrinsics = rs.intrinsics()
device = rs.software_device()
software = device.add_sensor("RGB")
profile = software.add_video_stream(stream)
recorder = rs.recorder(sys.argv[1], device)
sensor = recorder.query_sensors()[0]
sensor.open(profile)
sensor.start(lambda frame: None)
for index in range(61):
    frame = rs.software_video_frame()
    frame.pixels, frame.stride, frame.bpp = np.full((48, 64, 3), (index, 0, 0), np.uint8), 192, 3
    frame.timestamp, frame.domain, frame.frame_number = index * 10.0, rs.timestamp_domain.system_time, index
    frame.profile = profile.as_video_stream_profile()
    software.on_video_frame(frame)
    time.sleep(0.01)
sensor.stop()
sensor.close()
"""


def test_what_rosbag2s_own_storage_wrote(tmp_path):
    """librealsense's recorder has rosbag2's SQLite storage in it, the one that `ros2 bag record` uses."""
    path = tmp_path / "bag_0.db3"
    subprocess.run([sys.executable, "-c", RECORD_WITH_LIBREALSENSE, path], check=True, timeout=60)
    frames = list(SqliteRecording(path).messages("/device_0/sensor_0/Color_0/image/data/compressed"))
    stamps = np.array([frame.header.stamp.sec * 10**9 + frame.header.stamp.nanosec for frame in frames])
    reds = np.array([cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)[0, 0, 2] for frame in frames])
    # It drops some when it is slow.
    assert len(frames) > 40 and (np.diff(reds.astype(int)) > 0).all() and reds[-1] == 60
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        number = database.execute("INSERT INTO topics VALUES (NULL, ?, 'geometry_msgs/msg/PoseStamped', 'cdr', '')",
                                  (POSE,)).lastrowid
        for time in range(10_000_000, 2_000_000_000, 10_000_000):  # librealsense stamps from the recording's beginning
            pose = {"header": {"stamp": stamp(time)}, "pose": {"orientation": {"x": 1.0, "w": 0.0}}}
            database.execute("INSERT INTO messages VALUES (NULL, ?, ?, ?)",
                             (number, time, encode_message("geometry_msgs/msg/PoseStamped", pose)))
    [(_, episode)] = bag_episodes([path], size=(48, 64))
    shown = np.searchsorted(stamps, episode.time_ns, side="right") - 1
    assert len(episode) >= 5 and (np.diff(shown) > 0).all()
    expected = np.zeros_like(episode.observations["image"])
    expected[..., 0] = reds[shown][:, None, None]
    np.testing.assert_array_equal(episode.observations["image"], expected)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"no picture"])
def test_a_compressed_picture_that_is_none_is_named(tmp_path, storage, content):
    broken = encode_message("sensor_msgs/msg/CompressedImage", {"header": {"stamp": stamp(START_NS + 10**9)},
                                                                "format": "png", "data": content})
    rows = [*realsense_rows(compressed=True), (IMAGE, "sensor_msgs/msg/CompressedImage", broken, START_NS + 3 * 10**9)]
    with pytest.raises(DatasetError, match=rf"bag_0\.{storage}: compressed image: cannot be decoded"):
        list(bag_episodes([STORAGES[storage](tmp_path / f"bag_0.{storage}", rows)]))


UNPACK_WHAT_CLAIMS_GIGABYTES = """
import struct, zlib
import data_collection
import cv2, numpy as np
def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
png = (b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0))
       + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
try:
    print(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
except cv2.error as error:
    print("refused" if "PIXELS" in str(error) else error)
"""


def test_a_picture_that_claims_gigabytes_is_refused_before_memory_is_taken():
    """In a process of its own, because OpenCV asks for its limit when it is loaded."""
    done = subprocess.run([sys.executable, "-c", UNPACK_WHAT_CLAIMS_GIGABYTES], stdout=subprocess.PIPE, text=True,
                          check=True)
    assert done.stdout == "refused\n"


def test_a_sqlite_bag_says_itself_what_its_types_are_or_the_environment_does(tmp_path):
    rows = realsense_rows()
    unknown = [(topic, kind.replace("sensor_msgs", "lab_msgs"), data, time) for topic, kind, data, time in rows]
    path = write_sqlite_bag(tmp_path / "a_0.db3", rows, definitions=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE message_definitions SET encoded_message_definition = replace("
                         "encoded_message_definition, 'position', 'place') WHERE topic_type LIKE '%PoseStamped'")
    with pytest.raises(DatasetError, match=r"a_0\.db3: .*position"):
        list(bag_episodes([path]))
    with pytest.raises(DatasetError, match="image_topic: expected one topic"):
        list(bag_episodes([write_sqlite_bag(tmp_path / "b_0.db3", unknown)]))


HOSTILE_SQL = {
    "CREATE VIEW messages AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT x AS id, 1 AS topic_id, x'00' AS data FROM c": "no table messages",
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, data BLOB); "
    "INSERT INTO messages VALUES (1, 1, 'text')": "expected bytes, got str",
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, data BLOB); "
    "INSERT INTO messages VALUES (1, 1, x'28b52ffd00')": "packed messages",
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, data BLOB); "
    "INSERT INTO messages VALUES (1, 1, x'00')": "truncated or damaged",
    "CREATE TABLE messages(other)": "no such column"}


@pytest.mark.parametrize("sql", HOSTILE_SQL, ids=lambda sql: HOSTILE_SQL[sql])
def test_a_database_that_is_no_bag_is_named(tmp_path, sql):
    path = tmp_path / "bag_0.db3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format);"
                               f"INSERT INTO topics VALUES (1, '{POSE}', 'geometry_msgs/msg/PoseStamped', 'cdr'),"
                               f"(2, '{IMAGE}', 'sensor_msgs/msg/Image', 'cdr'); {sql}")
    with contextlib.closing(sqlite3.connect(path)) as database, database, contextlib.suppress(sqlite3.Error):
        database.execute("INSERT INTO messages SELECT 2, 2, data FROM messages")
    with pytest.raises(DatasetError, match=rf"bag_0\.db3: .*{HOSTILE_SQL[sql]}"):
        list(bag_episodes([path]))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_sqlite_bag_is_read_or_named(tmp_path_factory, tmp_path, data):
    """Without checksums what still decodes is read; nothing else than a line about the file may come of the rest."""
    if not hasattr(test_a_damaged_sqlite_bag_is_read_or_named, "content"):
        whole = write_sqlite_bag(tmp_path_factory.mktemp("whole") / "bag_0.db3", realsense_rows(compressed=True))
        test_a_damaged_sqlite_bag_is_read_or_named.content = whole.read_bytes()
    content = bytearray(test_a_damaged_sqlite_bag_is_read_or_named.content)
    # Every other flip in the first pages, where the tables' structure is.
    end = data.draw(st.sampled_from([len(content), 3 * 4096]))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, end - 1)):]
    else:
        content[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "bag_0.db3"
    path.write_bytes(content)
    try:
        episodes = list(bag_episodes([path]))
    except DatasetError as error:
        assert "bag_0.db3" in str(error) and "\n" not in str(error)
        return
    for _, episode in episodes:
        episode.validated()


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_bag_is_named_or_harmless(tmp_path_factory, tmp_path, data):
    if not hasattr(test_a_damaged_bag_is_named_or_harmless, "content"):
        path = write_bag(tmp_path_factory.mktemp("whole") / "bag_0.mcap", realsense_rows())
        test_a_damaged_bag_is_named_or_harmless.content = path.read_bytes(), list(bag_episodes([path]))
    whole, expected = test_a_damaged_bag_is_named_or_harmless.content
    content = bytearray(whole)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)):]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "bag_0.mcap"
    path.write_bytes(content)
    try:
        found = list(bag_episodes([path]))
    except DatasetError as error:
        assert "bag_0.mcap" in str(error) and "\n" not in str(error)
        return
    for (_, a), (_, b) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.observations["image"], b.observations["image"])
        np.testing.assert_array_equal(a.executed_action, b.executed_action)
