"""The recorder as a process of its own: what was published over DDS is what lies on disk, whatever happens to it."""

import contextlib
import os
import resource
import signal
import time

import numpy as np
import pytest

from data_collection.conversion.recording_file import RecordingFile
from safe_policy_core.data.episodes import read_episode

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

from safe_policy_interfaces.msg import EpisodeState

from tests.ros.episode_probe import EpisodeProbe
from tests.ros.graph import ros_graph, wait_for

pytestmark = pytest.mark.ros


@contextlib.contextmanager
def rig(directory, **parameters):
    """(graph, recorder process, probe) connected to each other."""
    directory.mkdir(exist_ok=True)
    with ros_graph(directory) as graph:
        recorder = graph.node("recorder_node", directory=directory / "own", **parameters)
        with contextlib.closing(EpisodeProbe(graph.domain)) as probe:
            probe.wait_for_recorder()
            yield graph, recorder, probe


def check_episode(path, probe, steps):
    """The training file holds exactly the first `steps` steps of what the probe published."""
    episode = read_episode(path)
    assert len(episode) == steps
    assert episode.metadata["replaced_images"] == 0
    for row, time_ns in enumerate(episode.time_ns.tolist()):
        np.testing.assert_array_equal(episode.observations["image"][row], probe.frames[time_ns])
    for name, field in (("executed_action",) * 2, ("policy_action", "requested_action"), ("human_action",) * 2,
                        ("reward",) * 2, ("cost",) * 2, ("intervention",) * 2, ("terminated",) * 2):
        np.testing.assert_array_equal(getattr(episode, name), [getattr(s, field) for s in probe.steps[:steps]], name)
    poses = [s.pose for s in probe.steps[:steps]] + [probe.steps[steps - 1].next_pose]
    np.testing.assert_array_equal(episode.observations["pose"], np.array(poses, np.float32))
    return episode


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with rig(tmp_path_factory.mktemp("recorder")) as parts:
        yield parts


def test_an_episode_is_recorded_exactly(shared, tmp_path):
    _, _, probe = shared
    probe.label("reward", 1.0)  # before the episode: part of the second that is kept
    probe.play("exact", steps=12, directory=tmp_path)
    saved = probe.wait_for_saved("exact")
    assert saved.success and saved.message == "", saved.message
    assert (saved.steps, saved.dropped) == (12, 0)
    assert saved.mcap_path == str(tmp_path / "exact.mcap") and saved.hdf5_path == str(tmp_path / "exact.h5")
    episode = check_episode(saved.hdf5_path, probe, 12)
    assert episode.terminated[-1] and not episode.metadata["interrupted"]
    assert episode.metadata["seed"] == 1 and episode.metadata["operator"] == "benchmark", "metadata_json is kept"

    recording = RecordingFile(saved.mcap_path)
    assert recording.topics == {"/camera/color/image_raw", "/franka/current_pose", "/episode/step", "/episode/state",
                                "/labels"}
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in recording.messages("/franka/current_pose")]
    assert [s for s in stamps if s in set(probe.pose_stamps)] == probe.pose_stamps, "every pose, in order"
    states = [(m.phase, m.episode_id) for m in recording.messages("/episode/state") if m.episode_id == "exact"]
    assert states == [(EpisodeState.RUNNING, "exact"), (EpisodeState.ENDED, "exact")]


def test_episodes_follow_each_other_without_a_pause(shared, tmp_path):
    _, _, probe = shared
    probe.play("first", steps=3, directory=tmp_path)
    probe.play("second", steps=3, directory=tmp_path)
    saved = probe.wait_for_saved("second")
    assert probe.wait_for_saved("first").success and saved.success
    check_episode(saved.hdf5_path, probe, 3)


def test_a_folder_that_cannot_be_written_is_told_and_the_next_episode_is_recorded(shared, tmp_path):
    _, recorder, probe = shared
    (tmp_path / "file").write_text("")
    probe.play("nowhere", steps=2, directory=tmp_path / "file" / "below")
    saved = probe.wait_for_saved("nowhere")
    assert not saved.success and "file/below" in saved.message and "\n" not in saved.message
    probe.play("somewhere", steps=2, directory=tmp_path)
    assert probe.wait_for_saved("somewhere").success
    assert recorder.poll() is None


def test_a_full_disk_is_told_and_the_next_episode_is_recorded(shared, tmp_path):
    _, recorder, probe = shared
    before = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        probe.play("full", steps=6, directory=tmp_path)
        saved = probe.wait_for_saved("full")
    finally:
        resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, before)
    assert not saved.success and "full.mcap.part" in saved.message
    assert (tmp_path / "full.mcap.part").stat().st_size > 50_000, "what fitted is kept"
    probe.play("after", steps=2, directory=tmp_path)
    assert probe.wait_for_saved("after").success
    assert recorder.poll() is None


def test_an_episode_without_steps_keeps_its_recording(shared, tmp_path):
    _, _, probe = shared
    probe.play("empty", steps=0, directory=tmp_path)
    saved = probe.wait_for_saved("empty")
    assert not saved.success and "/episode/step: no messages" in saved.message
    assert saved.hdf5_path == "" and (tmp_path / "empty.mcap").exists()


def test_the_end_of_the_policy_node_ends_the_episode(tmp_path):
    with rig(tmp_path) as (graph, _, probe):
        with contextlib.closing(EpisodeProbe(graph.domain)) as listener:
            probe.play("orphan", steps=5, end=False)
            del listener._states
            listener.node.destroy_publisher(next(p for p in listener.node.publishers
                                                 if p.topic_name == "/episode/state"))
            time.sleep(0.2)  # what a process had not handed over when it died is nobody's fault
            probe.close()
            saved = listener.wait_for_saved("orphan")
        assert saved.success and saved.steps == 5
        assert read_episode(saved.hdf5_path).metadata["interrupted"]


def test_a_signal_completes_the_recording(tmp_path):
    with rig(tmp_path) as (_, recorder, probe):
        probe.play("stopped", steps=5, end=False)
        recorder.signal(signal.SIGTERM)
        assert recorder.wait(10.0) == 0, recorder.output
        assert probe.wait_for_saved("stopped").success
        episode = check_episode(tmp_path / "own" / "stopped.h5", probe, 5)
        assert episode.truncated[-1] and episode.metadata["interrupted"]


def test_a_killed_recorder_loses_at_most_a_second(tmp_path):
    with rig(tmp_path) as (graph, recorder, probe):
        probe.play("killed", steps=20, end=False)
        recorder.signal(signal.SIGKILL)
        recorder.wait(5.0)
        assert os.listdir(tmp_path / "own") == ["killed.mcap.part"]
        probe.state(EpisodeState.ENDED, "killed")
        restarted = graph.node("recorder_node", directory=tmp_path / "own")
        saved = probe.wait_for_saved("killed", timeout=40.0)
        assert saved.success and saved.message == "recovered after a crash"
        assert saved.steps >= 10, "at least all but the last second"
        assert check_episode(saved.hdf5_path, probe, saved.steps).metadata["recovered"]
        wait_for(lambda: "recovered" in restarted.output, 5.0, "a line that says so")


def test_a_parameter_out_of_range_is_one_line(tmp_path):
    with ros_graph(tmp_path) as graph:
        recorder = graph.node("recorder_node", directory=tmp_path, tail=3.0)
        assert recorder.wait(40.0) == 2
        line = next(line for line in recorder.output.splitlines() if "FATAL" in line)
        assert "tail" in line and "3.0" in line and "Traceback" not in recorder.output
