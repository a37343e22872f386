from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_collection.conversion.recording_file import RecordingFile
from data_collection.labels import ContactWatch, obstacle_motion, paper_cost, suggested_cost, wrench_contacts
from data_collection.labels.contact import OBSTACLE_CHANNEL, OBSTACLE_EXCESS, WRENCH_TOPIC
from data_collection.recording import McapEpisodeWriter
from data_collection.recording.encoding import encode_message, stamp
from safe_policy_core.data.episodes import Episode, write_episode
from safe_policy_core.data.virtual_obstacles import VirtualObstacles
from tests.data_collection.review_rig import pushed


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


@pytest.mark.parametrize(("contact", "moving", "expected"), [
    ("......", "xxxxxx", []),  # what moves by itself costs nothing
    (".x....", ".xxx..", [(1, 4)]),
    (".x.x..", "......", [(1, 2), (3, 4)]),
    (".x..x.", ".xxx..", [(1, 5)]),
    ("....xx", "......", [(4, 6)]),
])
def test_cost_lasts_from_the_contact_until_the_obstacle_rests(contact: str, moving: str,
                                                              expected: list[tuple[int, int]]) -> None:
    assert paper_cost(flags(contact), flags(moving)) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40), st.integers(1, 4))
def test_intervals_hold_every_contact_and_start_with_one(steps: list[tuple[bool, bool]], rest: int) -> None:
    contact, moving = (np.array([step[i] for step in steps], bool) for i in range(2))
    cost = np.zeros(len(steps), bool)
    for first, end in paper_cost(contact, moving, rest):
        assert contact[first] and not cost[first:end].any()
        cost[first:end] = True
    assert not (contact & ~cost).any()


def test_pictures_tell_when_an_obstacle_moves() -> None:
    episode = pushed()
    assert obstacle_motion(episode.observations["image"]).nonzero()[0].tolist() == [4, 5, 6, 7]


def test_obstacles_have_one_colour() -> None:
    look = VirtualObstacles()
    assert (look.obstacle_channel, look.obstacle_excess) == (OBSTACLE_CHANNEL, OBSTACLE_EXCESS)


def test_suggestions_come_from_pictures_and_from_a_persons_first_contact(tmp_path: Path) -> None:
    path = tmp_path / "0.h5"
    episode = pushed()
    write_episode(path, episode)
    assert suggested_cost(path, episode) == [(2, 10)]
    assert suggested_cost(path, episode, first_contact=3) == [(3, 10)]
    write_episode(path, still := pushed(begin=3, end=3))
    assert suggested_cost(path, still) == []


def record_forces(path: Path, episode: Episode, force: Callable[[float], float]) -> None:
    """A recording of 100 Hz with `force` [N] of the time in steps along y, over an offset along x."""
    writer = McapEpisodeWriter(path, {"episode_id": path.stem})
    period = episode.time_ns[1] - episode.time_ns[0]
    for number, time_ns in enumerate(np.arange(episode.time_ns[0], episode.time_ns[-1], 10_000_000).tolist()):
        along = {"x": 2.0, "y": force((time_ns - episode.time_ns[0]) / period), "z": 0.0}
        kind = "geometry_msgs/msg/WrenchStamped"
        writer.write(WRENCH_TOPIC, kind, encode_message(
            kind, {"header": {"stamp": stamp(time_ns)}, "wrench": {"force": along}}), time_ns, sequence=number + 1)
    writer.close()


def test_the_wrench_tells_contacts(tmp_path: Path) -> None:
    path, episode = tmp_path / "0.h5", pushed(5, 5, 5)
    write_episode(path, episode)
    record_forces(tmp_path / "0.mcap", episode, lambda step: 5.0 * (2 <= step < 3))
    contact = wrench_contacts(RecordingFile(tmp_path / "0.mcap"), episode.time_ns)
    assert contact is not None and contact.tolist() == [False, False, True, False, False]
    assert suggested_cost(path, episode) == [(2, 3)]
    (tmp_path / "0.mcap").write_bytes(b"not a recording")
    assert suggested_cost(path, episode) == [], "a damaged recording suggests nothing"


def test_an_arm_that_measures_no_wrench_leaves_contacts_to_the_pictures(tmp_path: Path) -> None:
    path, episode = tmp_path / "0.h5", pushed()
    write_episode(path, episode)
    record_forces(tmp_path / "0.mcap", episode, lambda _: 0.0)
    assert suggested_cost(path, episode) == [(2, 10)]


def test_a_contact_is_told_once_while_it_is_there_and_whatever_the_offset(tmp_path: Path) -> None:
    watch = ContactWatch(force=3.0, memory=50)
    rng = np.random.default_rng(0)
    told = []
    for reading in range(1000):
        drift = np.array([1.0 + reading / 200, -2.0, 0.5]) + rng.normal(0, 0.3, 3)
        touch = 6.0 if 300 <= reading < 400 or 700 <= reading < 720 else 0.0
        if (strength := watch.look(drift + np.array([0, touch, 0]))) > 0:
            told.append(reading)
            assert 3.0 < strength < 8.0
    assert told == [300, 700]
