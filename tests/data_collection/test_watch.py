"""What a viewer is given of a recording: read back from Rerun's and Foxglove's own files, and over local sockets."""

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader

from data_collection.benchmark import START_NS, example_messages, example_metadata
from data_collection.conversion.recording_file import RecordingFile
from data_collection.recording import McapEpisodeWriter
from data_collection.recording.encoding import encode_message, stamp
from data_collection.watch import rerun_layout, view
from data_collection.watch.arm_model import joint_points
from data_collection.watch.commands import Watch, play
from data_collection.watch.foxglove_layout import LAYOUT_FILE, LIMITS, layout
from data_collection.watch.foxglove_view import FoxgloveView
from data_collection.watch.recordings import WatchedRecording
from data_collection.watch.rerun_view import RerunView
from data_collection.watch.rerun_viewer import RerunViewer, rerun_program
from safe_policy_core.errors import ConfigurationError, DatasetError

STEPS = 6
LOW, HIGH = [0.375, -0.125, 0.028], [0.625, 0.125, 0.044]
ANGLES = [0.04968424513936043, 0.4712163209915161, -0.2053794264793396, -2.30182147026062, -0.0751679390668869,
          2.7132728099823, 0.8874613642692566]
TOOL = (0.5018177628517151, -0.09570857137441635, 0.03900741785764694)
"""Joint angles [rad] and measured tool [m] at one moment of a recording of the simulated arm."""
GATE = ("/safety_gate/status", "safe_policy_interfaces/msg/GateStatus")


def extra_messages() -> list[tuple[str, str, bytes, int, int]]:
    """What the benchmark's example leaves out, at times of its steps."""
    def row(topic, type_name, milliseconds, **fields):
        return topic, type_name, encode_message(type_name, fields), START_NS + milliseconds * 1_000_000, 0

    state = "safe_policy_interfaces/msg/EpisodeState"
    metadata = json.dumps({"limits": {"workspace_low": LOW, "workspace_high": HIGH}})
    pose = {"position": {"x": 0.5, "y": 0.1, "z": 0.04}, "orientation": {"x": 1.0, "y": 0.0, "z": 0.0, "w": 0.0}}
    return [
        row("/episode/state", state, 20, phase=2, episode_id="one", metadata_json=metadata),
        row("/episode/state", state, 100 * STEPS + 10, phase=3, episode_id="one"),
        row("/franka/target_pose", "geometry_msgs/msg/PoseStamped", 60, pose=pose),
        row("/franka/joint_states", "sensor_msgs/msg/JointState", 60, position=ANGLES),
        row("/franka/external_wrench", "geometry_msgs/msg/WrenchStamped", 60, wrench={"force": {"x": 3.0, "y": 4.0}}),
        row("/labels", "safe_policy_interfaces/msg/LabelEvent", 70, kind="cost", value=1.0, source="key", who="Ada"),
        *(row(*GATE, 80 + 20 * k, state=1, source="policy", cost_spent=float(k)) for k in range(3)),
        row(*GATE, 140, state=1, source="policy", hold="veto", limits=["workspace", "speed"]),
        row(*GATE, 160, state=3, reason="stale_frame")]


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("watch") / "one.mcap"
    writer = McapEpisodeWriter(path, example_metadata())
    messages = sorted([*example_messages(STEPS, 64, 64, seed=1), *extra_messages()], key=lambda entry: entry[3])
    for topic, kind, data, time_ns, sequence in messages:
        writer.write(topic, kind, data, time_ns, sequence=sequence)
    return writer.close()


def logged(path: Path) -> dict[str, dict[str, list]]:
    """Component columns of each entity in a .rrd file, in the order of time."""
    from rerun.chunk import RrdReader

    columns: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for chunk in RrdReader(path).stream():
        batch = chunk.to_record_batch()
        times = batch.column("time").cast("int64").to_pylist() if "time" in batch.schema.names else [0] * len(batch)
        for name in batch.schema.names:
            if ":" in name:
                columns[chunk.entity_path][name] += [
                    (time, value) for time, value in zip(times, batch.column(name).to_pylist(), strict=True)
                    if value is not None]
    return {path: {name: sorted(rows, key=lambda row: row[0]) for name, rows in found.items()}
            for path, found in columns.items()}


def values(found: dict, path: str, column: str) -> list:
    return [value for _, value in found[path][column]]


def test_a_rerun_file_holds_every_view(recording, tmp_path):
    (written,) = Watch((recording,), save=tmp_path / "out").run()["files"]
    found = logged(Path(written))
    assert Path(written).name == "one.rrd"
    steps = list(RecordingFile(recording).messages("/episode/step"))
    for name in ("executed", "requested", "human"):
        np.testing.assert_allclose(values(found, f"/action/{name}", "Scalars:scalars"),
                                   [getattr(step, f"{name}_action") for step in steps])
    pictures = found["/camera"]["EncodedImage:blob"]
    assert len(pictures) == STEPS * 3 + 1 and pictures[0][0] == START_NS
    first = next(iter(RecordingFile(recording).messages(view.CAMERA)))
    shown = cv2.imdecode(np.array(pictures[0][1][0], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    difference = shown.astype(int) - np.frombuffer(first.data, np.uint8).reshape(64, 64, 3)
    assert np.abs(difference).mean() < 15, "the same picture, but for what JPEG leaves out"
    middle, half = np.mean([LOW, HIGH], axis=0), (np.array(HIGH) - LOW) / 2
    np.testing.assert_allclose(values(found, "/arm/limits", "Boxes3D:centers")[0][0], middle, atol=1e-6)
    np.testing.assert_allclose(values(found, "/arm/limits", "Boxes3D:half_sizes")[0][0], half, atol=1e-6)
    np.testing.assert_allclose(values(found, "/arm/target", "Transform3D:translation")[0][0], [0.5, 0.1, 0.04])
    assert len(found["/arm/tool"]["Transform3D:translation"]) == STEPS * 10
    assert values(found, "/wrench/force", "Scalars:scalars") == [[5.0]]
    assert [text for [text] in values(found, "/gate/decisions", "TextLog:text")] == [
        "episode one: RUNNING", "cost 1 from key Ada", "ACTIVE for policy",
        "ACTIVE for policy held by veto limited by speed, workspace", "FAULT because of stale_frame",
        "episode one: ENDED"]
    assert values(found, "/gate/decisions", "TextLog:level")[4] == ["ERROR"]
    assert len(found["/safety/violation_probability"]["Scalars:scalars"]) == STEPS
    clock = [text for [text] in values(found, "/episode/clock", "TextDocument:text")]
    assert clock[0].startswith("# 0.0 s") and "RUNNING" in clock[0]
    assert clock[-1].startswith("# 0.6 s") and f"step {STEPS}, ENDED" in clock[-1], "it ran from 20 to 610 ms"


def origins(container):
    """Where each view of a Rerun blueprint looks."""
    parts = getattr(container, "contents", None)
    if not isinstance(parts, (list, tuple)):
        return [(container.name, parts if isinstance(parts, str) and parts != "$origin/**" else container.origin)]
    return [found for part in parts for found in origins(part)]


def test_every_view_of_reruns_layout_has_something_to_show(recording, tmp_path):
    (written,) = Watch((recording,), save=tmp_path / "out").run()["files"]
    shown = {path for path, columns in logged(Path(written)).items() if any(columns.values())}
    views = dict(origins(rerun_layout.layout().root_container))
    assert views.keys() >= {"Camera", "Arm, target and limits", "Episode", "Gate decisions", "Action, executed",
                            "Violation probability and values", "Reward and cost", "Cost spent"}
    for name, origin in views.items():
        assert any(path == f"/{origin}" or path.startswith(f"/{origin}/") for path in shown), name


def test_another_program_reads_the_recording(recording, tmp_path):
    """Rerun's own importer of MCAP is written in Rust and shares nothing with the library that wrote the file."""
    out = tmp_path / "imported.rrd"
    subprocess.run([rerun_program(), "mcap", "convert", recording, "-o", out], check=True, capture_output=True,
                   timeout=60)
    found = logged(out)
    with open(recording, "rb") as file:
        counts = Counter(channel.topic for _, channel, _ in make_reader(file).iter_messages())
    for topic, count in counts.items():
        assert max(len(rows) for rows in found[topic].values()) == count, topic


def test_the_drawn_arm_ends_where_the_arm_was():
    points = joint_points(np.array(ANGLES))
    assert points.shape == (9, 3) and np.allclose(points[1], [0, 0, 0.333])
    assert np.linalg.norm(points[-1] - TOOL) == pytest.approx(0.1034, abs=1e-5), "the hand's length"


def test_a_foxglove_file_holds_the_messages_and_the_box(recording, tmp_path):
    (written,) = Watch((recording,), viewer="foxglove", save=tmp_path).run()["files"]
    with open(recording, "rb") as ours, open(written, "rb") as theirs:
        before = [(channel.topic, m.log_time, m.data) for _, channel, m in make_reader(ours).iter_messages()
                  if channel.topic in view.TOPICS]
        after = [(schema, channel, m) for schema, channel, m in make_reader(theirs).iter_messages()]
    assert sorted(before) == sorted((c.topic, m.log_time, m.data) for _, c, m in after if c.topic != LIMITS)
    ((schema, _, _),) = [entry for entry in after if entry[1].topic == LIMITS]
    assert schema.name == "foxglove.SceneUpdate"
    with pytest.raises(ConfigurationError, match="exists already"):
        Watch((recording,), viewer="foxglove", save=tmp_path).run()


def test_the_shipped_layout_is_the_one_in_the_code_and_names_what_is_recorded(recording):
    shipped = json.loads(LAYOUT_FILE.read_text())
    assert shipped == json.loads(layout().to_json()), "python -m data_collection.watch.foxglove_layout writes it"
    text = json.dumps(shipped)
    for topic in (view.CAMERA, view.TOOL, view.TARGET, view.GATE, view.STEP, view.STATE, LIMITS):
        assert topic in text
    step = next(iter(RecordingFile(recording).messages("/episode/step")))
    for field in ("executed_action", "requested_action", "violation_probability", "cost_value", "reward", "cost"):
        assert f"/episode/step.{field}" in text and hasattr(step, field)


def reachable(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_foxglove_gets_live_messages_and_only_on_this_address(recording):
    from websockets.asyncio.client import connect

    shown = WatchedRecording(recording)
    bridge = FoxgloveView(shown.definition)
    port = int(bridge.serve(0).rsplit(":", 1)[1])
    # A socket of all interfaces would answer at this address of this machine too.
    assert reachable("127.0.0.1", port) and not reachable("127.0.0.2", port)
    state = next(entry for entry in shown.messages() if entry[1] == "/episode/state")

    async def listen() -> dict[str, bytes]:
        async with connect(f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"]) as link:
            channels: dict[int, str] = {}
            got: dict[str, bytes] = {}
            bridge.show(state[1], state[2], state[3], state[0])
            while set(got) != {"/episode/state", LIMITS}:
                message = await asyncio.wait_for(link.recv(), 10)
                if isinstance(message, str):
                    content = json.loads(message)
                    if content["op"] == "advertise":
                        new = {entry["id"]: entry["topic"] for entry in content["channels"]}
                        channels |= new
                        await link.send(json.dumps({"op": "subscribe", "subscriptions": [
                            {"id": number, "channelId": number} for number in new]}))
                        await asyncio.sleep(0.2)
                        bridge.show(state[1], state[2], state[3], state[0])
                elif message[0] == 1:  # message data: opcode, subscription, time of logging, payload
                    number, time_ns = struct.unpack_from("<IQ", message, 1)
                    assert time_ns == state[0]
                    got[channels[number]] = message[13:]
            return got

    try:
        got = asyncio.run(listen())
    finally:
        bridge.close()
    assert got["/episode/state"] == state[3]
    assert struct.pack("<d", HIGH[0] - LOW[0]) in got[LIMITS], "the box's size"


def test_reruns_program_gets_a_recording_listens_here_only_and_ends(recording):
    viewer = RerunViewer(port=0, window=False)
    try:
        ports = [int(viewer.address.split(":")[2].split("/")[0]), int(viewer.url.split("?")[0].rsplit(":", 1)[1])]
        for port in ports:
            assert reachable("127.0.0.1", port) and not reachable("127.0.0.2", port)
        shown = RerunView("one")
        shown.connect(viewer.address)
        assert WatchedRecording(recording).show_in(shown) == 96
        shown.close()
        assert viewer.running
    finally:
        viewer.close()
    assert not viewer.running and not any(reachable("127.0.0.1", port) for port in ports)


def test_a_recording_is_played_at_its_own_speed(recording):
    now, waits, seen = [0.0], [], []

    class Screen:
        def show(self, topic, type_name, data, time_ns):
            seen.append((now[0], time_ns))

        def close(self):
            """Nothing is held."""

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    play(WatchedRecording(recording), Screen(), lambda: now[0], sleep)
    assert sum(waits) == pytest.approx(0.61)
    for moment, time_ns in seen:
        assert moment == pytest.approx((time_ns - START_NS) * 1e-9, abs=1e-6)


def test_what_cannot_be_watched_is_one_line(recording, tmp_path):
    (tmp_path / "junk.mcap").write_bytes(recording.read_bytes()[:500])
    writer = McapEpisodeWriter(tmp_path / "other.mcap", {})
    writer.write("/chatter", "std_msgs/msg/String", encode_message("std_msgs/msg/String", {"data": "x"}), 1)
    writer.close()
    for path, words in ((tmp_path / "junk.mcap", "truncated or damaged"), (tmp_path / "other.mcap", "/chatter"),
                        (tmp_path / "gone.mcap", "no such"), (LAYOUT_FILE.parent, "no recordings")):
        with pytest.raises(DatasetError, match=words):
            Watch((path,), save=tmp_path / "out").run()
    with pytest.raises(ConfigurationError, match="save: name recordings"):
        Watch(save=tmp_path / "out").run()
    screen = RerunView("broken")
    screen.save(tmp_path / "broken.rrd")
    with pytest.raises(DatasetError, match="geometry_msgs/msg/PoseStamped: cannot be decoded"):
        screen.show(view.TOOL, "geometry_msgs/msg/PoseStamped", b"\x00\x01\x00\x00abc", 1)
    bad = encode_message("safe_policy_interfaces/msg/EpisodeState", {
        "header": {"stamp": stamp(1)}, "phase": 9, "metadata_json": '{"limits": {"workspace_low": [1]}}'})
    screen.show(view.STATE, "safe_policy_interfaces/msg/EpisodeState", bad, 2)
    screen.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_plays_until_it_is_interrupted(recording, number):
    process = subprocess.Popen([sys.executable, "-m", "safe_policy_core.cli", "watch", str(recording), "--viewer",
                                "foxglove", "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    for line in process.stderr:
        if "playing one.mcap" in line:
            break
    time.sleep(0.2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert json.loads(out.splitlines()[-1]) == {"viewer": "foxglove", "ended": "by a signal"}
    assert process.returncode == 0
