"""Obstacles added to recorded episodes: what is painted, and what is labelled."""

from dataclasses import replace

import numpy as np
import pytest

from safe_policy_core.data.episodes import Episode, EpisodeStore
from safe_policy_core.data.virtual_obstacles import ObstacleArtist, VirtualObstacles, with_copies
from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.interfaces import Specs
from tests.core.test_vision import ABOVE, SIDE, SPECS, picture

SETTINGS = VirtualObstacles(copies=2, most=1, low=(0.15, -0.3), high=(0.85, 0.3), contact=(0.05, 0.05),
                            clear=(0.08, 0.08), height=0.0, smallest=9, largest=60)
TABLE = np.array([70, 60, 60], np.uint8)


def episode(start: tuple[float, float], step: tuple[float, float], obstacle: tuple[float, float], seed: int = 0
            ) -> Episode:
    """Ten steps along a line, a green obstacle on the table, and a grey tool that hides what is below it."""
    tool = np.array(start) + np.arange(11)[:, None] * np.array(step)
    images = np.broadcast_to(TABLE, (11, SIDE, SIDE, 3)).copy()
    green = picture(*obstacle)[..., 0] > 0
    images[:, green] = (25, 160, 50)
    for image, place in zip(images, tool, strict=True):
        image[picture(*place, half=0.03)[..., 0] > 0] = 220
    pose = np.zeros((11, 6), np.float32)
    pose[:, :2] = tool
    steps = 10
    terminated = np.zeros(steps, bool)
    terminated[-1] = True
    action = np.zeros((steps, 6), np.float32)
    return Episode({"image": images, "pose": pose}, action, action, action, np.zeros(steps, bool), [""] * steps,
                   terminated.astype(np.float32), np.zeros(steps, np.float32), terminated, np.zeros(steps, bool),
                   np.arange(steps + 1), {"specs": SPECS.to_json(), "seed": seed, "success": True})


@pytest.fixture(scope="module")
def store() -> EpisodeStore:
    result = EpisodeStore()
    for number in range(8):
        result.add(episode((0.2, -0.3 + 0.07 * number), (0.06, 0.0), (0.5, 0.35 if number < 4 else -0.35), number))
    return result


@pytest.fixture(scope="module")
def copies(store: EpisodeStore) -> EpisodeStore:
    return with_copies(store, ObstacleArtist(SETTINGS, ABOVE, store, 0))


def added(copy: dict[str, np.ndarray], original: dict[str, np.ndarray]) -> np.ndarray:
    """Pixels of the first frame that changed: (H, W) bool."""
    return (copy["image"][0] != original["image"][0]).any(-1)


def pairs(store: EpisodeStore, copies: EpisodeStore) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    originals = {summary.sha256: store.rows_of(index) for index, summary in enumerate(store.summaries)}
    return [(copies.rows_of(index), originals[summary.sha256.split("+")[0]])
            for index, summary in enumerate(copies.summaries) if "+" in summary.sha256]


def test_originals_stay(store: EpisodeStore, copies: EpisodeStore) -> None:
    assert len(copies) > len(store)
    kept = [index for index, summary in enumerate(copies.summaries) if "+" not in summary.sha256]
    for index, original in zip(kept, range(len(store)), strict=True):
        for name, column in store.rows_of(original).items():
            assert np.array_equal(copies.rows_of(index)[name], column)


def test_a_touched_obstacle_is_labelled_where_the_tool_touches_it(store: EpisodeStore, copies: EpisodeStore) -> None:
    touched = [(copy, original) for copy, original in pairs(store, copies) if copy["cost"].any()]
    assert touched
    for copy, original in touched:
        rows, columns = np.nonzero(added(copy, original))
        place = ABOVE.on_plane(np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / SIDE, 0.0)
        distance = np.abs(copy["pose"][:, :2] - place).max(1)
        # The centre of the painted square is known to a pixel, which is 1.6 cm wide.
        assert distance[-1] < 0.05 + 0.017 and (distance[:-1] > 0.05 - 0.017).all()
        assert copy["cost"][-1] == 1 and not copy["cost"][:-1].any()
        assert copy["is_last"][-1] and not copy["is_terminal"][-1] and not copy["has_next_action"][-1]
        assert not copy["next_action"][-1].any()
        assert np.allclose(copy["cost_to_go"], [1] * (len(copy["cost"]) - 1) + [0])
        assert not copy["return_to_go"].any()


def test_a_clear_obstacle_changes_nothing_but_the_picture(store: EpisodeStore, copies: EpisodeStore) -> None:
    clear = [(copy, original) for copy, original in pairs(store, copies) if not copy["cost"].any()]
    assert clear
    for copy, original in clear:
        assert added(copy, original).any()
        for name in original.keys() - {"image", "contact_place"}:
            assert np.array_equal(copy[name], original[name])
        rows, columns = np.nonzero(added(copy, original))
        places = ABOVE.on_plane((np.stack([columns, rows], -1) + 0.5) / SIDE, 0.0)
        assert (np.abs(copy["pose"][:, None, :2] - places).max(-1) > 0.08 - 0.06).all()


def test_the_arm_stays_in_front(store: EpisodeStore, copies: EpisodeStore) -> None:
    for copy, original in pairs(store, copies):
        tool = (original["image"][:len(copy["image"])] == 220).all(-1)
        assert np.array_equal(copy["image"][tool], original["image"][:len(copy["image"])][tool])


def test_places_of_contact_are_on_the_added_obstacle(store: EpisodeStore, copies: EpisodeStore) -> None:
    assert all(np.isnan(copies.rows_of(index)["contact_place"]).all()
               for index, summary in enumerate(copies.summaries) if "+" not in summary.sha256)
    for copy, original in pairs(store, copies):
        rows, columns = np.nonzero(added(copy, original))
        place = ABOVE.on_plane(np.array([columns.mean() + 0.5, rows.mean() + 0.5]) / SIDE, 0.0)
        assert (np.abs(copy["contact_place"] - place) < 0.05 + 0.017).all()
        assert len(np.unique(copy["contact_place"], axis=0)) > 1


def test_what_hides_an_obstacle_stays_in_front(store: EpisodeStore) -> None:
    # The camera above sees larger y higher up, so that what has larger y counts as behind.
    artist = ObstacleArtist(replace(SETTINGS, low=(0.44, 0.40), high=(0.56, 0.46)), ABOVE, store, 0)
    original = store.rows_of(0)
    original["contact_place"] = np.zeros((11, 2), np.float32)
    green = (original["image"][0] == (25, 160, 50)).all(-1)
    found = [copy for seed in range(40)
             if (copy := artist.copy(original, False, np.random.default_rng(seed))) is not None]
    assert any((added(copy, original) & np.roll(green, -1, 0)).any() for copy in found), "one right behind it"
    for copy in found:
        assert (copy["image"][0][green] == (25, 160, 50)).all()


def test_summaries_describe_the_copies(copies: EpisodeStore) -> None:
    for index, summary in enumerate(copies.summaries):
        rows = copies.rows_of(index)
        assert summary.rows == len(rows["cost"]) and summary.total_cost == rows["cost"].sum()
        assert summary.success == bool(rows["reward"].any())


def test_copies_do_not_depend_on_the_order(store: EpisodeStore) -> None:
    backwards = EpisodeStore()
    for index in reversed(range(len(store))):
        backwards.add_rows(store.specs, store.rows_of(index), store.summaries[index])
    artist = ObstacleArtist(SETTINGS, ABOVE, store, 0)
    assert with_copies(backwards, artist).data_hash() == with_copies(store, artist).data_hash()
    assert with_copies(store, ObstacleArtist(SETTINGS, ABOVE, store, 1)).data_hash() \
        != with_copies(store, artist).data_hash()


def test_what_it_needs(store: EpisodeStore) -> None:
    with pytest.raises(DatasetError, match="no first frame"):
        ObstacleArtist(VirtualObstacles(copies=1, obstacle_channel=2), ABOVE, store, 0)
    blind = EpisodeStore()
    first = episode((0.2, 0.0), (0.06, 0.0), (0.5, 0.3))
    del first.observations["image"]
    first.metadata["specs"] = Specs({"pose": SPECS.observation["pose"]}, SPECS.action, SPECS.scales).to_json()
    blind.add(first)
    with pytest.raises(ConfigurationError, match="image"):
        ObstacleArtist(SETTINGS, ABOVE, blind, 0)
