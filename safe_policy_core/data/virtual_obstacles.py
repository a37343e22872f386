"""Recorded episodes with obstacles added that were not there: hindsight for safety.

A person records 200 trajectories around two obstacles on six marks; the arm later meets four, anywhere.
But a trajectory is as good a record of what would have happened on another table: where it keeps
clear of a place, an obstacle there changes nothing but the picture, and where it passes
through one, it would have touched it. So pictures of obstacles are cut out of first frames, moved
to other places on the table (a calibrated camera says how they look there), pasted behind the
arm, and the first contact is labelled with cost 1 and ends the copy, since what comes after was not recorded.

Not in the papers. Works on what a real table gives: colours of obstacles and target, a fixed
calibrated camera, and contacts' distances; it never asks a simulator where things are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.vision.projection import Projection
from safe_policy_core.vision.table_map import CONTACT_PLACE

IMAGE, POSE = "image", "pose"
_BACKGROUND_TOLERANCE = 30
"""A pixel shows the bare table when no channel is further than this from the median picture."""
_ATTEMPTS = 40
_VISIBLE = 0.3
"""Of an obstacle that something hides, at least this share must be seen."""


@dataclass(frozen=True)
class VirtualObstacles:
    """Half of the copies keep clear of every added obstacle, half touch one if the trajectory can.

    The distances were read off the first contacts and the safe episodes of 200 SafeReach
    demonstrations: contacts began within 2.6 cm sideways and 3.5 cm along the camera's view.
    """

    copies: int = 0
    """Copies of every recorded episode; 0 is off."""
    most: int = 3
    """Added obstacles, 1 to this many."""
    low: tuple[float, float] = (0.39, -0.065)
    """Smallest x and y of an added obstacle's centre [m]."""
    high: tuple[float, float] = (0.61, 0.105)
    """Largest."""
    contact: tuple[float, float] = (0.027, 0.035)
    """The tool touches an obstacle within this of its centre in x and in y [m]."""
    clear: tuple[float, float] = (0.031, 0.040)
    """Beyond this it certainly does not; obstacles that the tool comes in between are not added [m]."""
    gap: float = 0.05
    """From an added obstacle to whatever else stands there at least [m], measured where their lower edges are seen."""
    height: float = 0.02
    """Half the obstacles' height [m]."""
    obstacle_channel: int = 1
    """Obstacles are stronger in this channel (0 red, 1 green, 2 blue) than in the others by `obstacle_excess`."""
    obstacle_excess: int = 25
    target_channel: int = 0
    target_excess: int = 60
    smallest: int = 60
    largest: int = 82
    """Pixels of one whole obstacle; what is smaller is partly hidden, what is larger is two that overlap."""


@dataclass(frozen=True)
class _Patch:
    """An obstacle cut out of a frame: its pixels, where they are, its centre (image coordinates) and place [m]."""

    image: np.ndarray
    mask: np.ndarray
    centre: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class _Thing:
    """Something coloured in a first frame: its mask, its lowest row, and where that stands on the table (2,) [m]."""

    mask: np.ndarray
    edge: int
    foot: np.ndarray


def with_copies(store: EpisodeStore, artist: ObstacleArtist) -> EpisodeStore:
    """The episodes of `store`, each followed by its copies."""
    result = EpisodeStore()
    for index in range(len(store)):
        add_with_copies(result, store, index, artist)
    return result


def add_with_copies(target: EpisodeStore, source: EpisodeStore, index: int, artist: ObstacleArtist,
                    weight: float = 1.0) -> None:
    """Adds episode `index` of `source` to `target`, and its copies."""
    rows, summary = source.rows_of(index), source.summaries[index]
    rows[CONTACT_PLACE] = np.full((len(rows["cost"]), 2), np.nan, np.float32)
    target.add_rows(source.specs, rows, summary, weight)
    for copy in range(artist.settings.copies):
        # Drawn from the content, so that an episode's copies are the same whenever and in whatever order it comes.
        rng = np.random.default_rng((artist.seed, int(summary.sha256[:16], 16), copy))
        if (changed := artist.copy(rows, touching=copy % 2 == 1, rng=rng)) is not None:
            target.add_rows(source.specs, changed, replace(
                summary, rows=len(changed["cost"]), total_reward=float(changed["reward"].sum()),
                total_cost=float(changed["cost"].sum()),
                success=summary.success and bool(changed["reward"].sum() == rows["reward"].sum()),
                sha256=f"{summary.sha256}+{artist.seed}.{copy}"), weight)


class ObstacleArtist:
    """Knows the bare table and how obstacles look, from the episodes of `store`.

    Raises `ConfigurationError` for episodes without `image` and `pose`, `DatasetError` when no first frame
    shows a whole obstacle.
    """

    def __init__(self, settings: VirtualObstacles, projection: Projection, store: EpisodeStore, seed: int) -> None:
        if IMAGE not in store.specs.observation or POSE not in store.specs.observation:
            raise ConfigurationError(f"virtual obstacles: need observations {IMAGE!r} and {POSE!r}, got "
                                     f"{sorted(store.specs.observation)}")
        self.settings, self.projection, self.seed = settings, projection, seed
        episodes = [store.rows_of(index) for index in range(len(store))]
        frames = np.concatenate([rows[IMAGE][::4] for rows in episodes])
        self.background = np.median(frames, 0).astype(np.int16)
        self.side = np.array(frames.shape[2:0:-1], float)  # width, height
        y, x = np.mgrid[0:frames.shape[1], 0:frames.shape[2]]
        self.centres = (np.stack([x, y], -1) + 0.5) / self.side
        self.patches = [patch for rows in episodes for patch in self._cut(rows[IMAGE][0])]
        if not self.patches:
            raise DatasetError("virtual obstacles: no first frame shows a whole obstacle; check obstacle_channel, "
                               "obstacle_excess, smallest and largest")

    def _coloured(self, image: np.ndarray, channel: int, excess: int) -> np.ndarray:
        others = np.delete(image, channel, -1).max(-1).astype(np.int16)
        return image[..., channel].astype(np.int16) - others > excess

    def _cut(self, image: np.ndarray) -> Iterator[_Patch]:
        settings = self.settings
        for mask in _components(self._coloured(image, settings.obstacle_channel, settings.obstacle_excess)):
            y, x = np.nonzero(mask)
            inside = x.min() > 0 and y.min() > 0 and x.max() < self.side[0] - 1 and y.max() < self.side[1] - 1
            if settings.smallest <= len(x) <= settings.largest and inside:
                centre = np.array([x.min() + x.max() + 1, y.min() + y.max() + 1]) / 2 / self.side
                yield _Patch(image, mask, centre, self.projection.on_plane(centre, settings.height))

    def copy(self, rows: dict[str, np.ndarray], touching: bool, rng: np.random.Generator
             ) -> dict[str, np.ndarray] | None:
        """The episode with obstacles added, until it touches one; None when none could be placed."""
        settings = self.settings
        images = rows[IMAGE].copy()
        bare = (np.abs(images - self.background) < _BACKGROUND_TOLERANCE).all(-1)
        things = [self._thing(part) for channel, excess in ((settings.obstacle_channel, settings.obstacle_excess),
                                               (settings.target_channel, settings.target_excess))
                  for part in _components(self._coloured(images[0], channel, excess))]
        last, places = len(images), []
        for number in range(int(rng.integers(1, settings.most + 1))):
            placed = self._place(rows[POSE][:, :2], things, touching and number == 0, rng)
            if placed is None:
                continue
            silhouette, pixels, first, place = placed
            where = bare & silhouette
            images[where] = np.broadcast_to(pixels, images.shape)[where]
            bare &= ~silhouette
            things.append(self._thing(silhouette))
            last = min(last, first)
            places.append(place)
        if not places:
            return None
        changed = {name: column[:last + 1].copy() for name, column in rows.items()} | {IMAGE: images[:last + 1]}
        count = len(changed[CONTACT_PLACE])
        aside = rng.uniform(-1, 1, (count, 2)) * settings.contact
        changed[CONTACT_PLACE][:] = np.array(places)[rng.integers(len(places), size=count)] + aside
        if last < len(images):
            _end_in_contact(changed)
        return changed

    def _place(self, tool: np.ndarray, things: Sequence[_Thing], touching: bool, rng: np.random.Generator
               ) -> tuple[np.ndarray, np.ndarray, int, np.ndarray] | None:
        """Visible part (H, W), pixels (H, W, 3), row of the first contact (len(tool) without one), and place (2,).

        things: what stands there. It keeps the gap from all, and may stand behind one but not in front of it.
        """
        settings = self.settings
        for _ in range(_ATTEMPTS):
            place = rng.uniform(settings.low, settings.high)
            distance = np.abs(tool - place)
            contact = (distance < settings.contact).all(1)
            first = int(contact.argmax()) if contact.any() else len(tool)
            # Up to the contact the pictures hold; before the third row there is nothing to learn from.
            if touching != (first < len(tool)) or first < 3 \
                    or (not touching and (distance < settings.clear).all(1).any()):
                continue
            silhouette, pixels = self._drawn(self.patches[rng.integers(len(self.patches))], place)
            if not silhouette.any():
                continue
            new, visible = self._thing(silhouette), silhouette.copy()
            if any(np.linalg.norm(new.foot - thing.foot) < settings.gap or
                   (new.edge >= thing.edge and (silhouette & thing.mask).any()) for thing in things):
                continue
            for thing in things:
                visible &= ~thing.mask
            if visible.sum() >= _VISIBLE * silhouette.sum():
                return visible, pixels, first, place
        return None

    def _thing(self, mask: np.ndarray) -> _Thing:
        rows, columns = np.nonzero(mask)
        foot = np.array([columns.min() + columns.max() + 1, 2 * (rows.max() + 1)]) / 2 / self.side
        return _Thing(mask, int(rows.max()), self.projection.on_plane(foot, 0.0))

    def _drawn(self, patch: _Patch, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A patch moved to a place on the table, larger where that is nearer to the camera."""
        points = np.array([[*place, self.settings.height], [*patch.place, self.settings.height]])
        (centre, _), (depth, source_depth) = self.projection.pixels(points)
        source = ((self.centres - centre) * (depth / source_depth) + patch.centre) * self.side
        x, y = np.clip(source, 0, self.side - 1).astype(int).transpose(2, 0, 1)
        inside = ((source >= 0) & (source < self.side)).all(-1)
        return patch.mask[y, x] & inside, patch.image[y, x]


def _end_in_contact(rows: dict[str, np.ndarray]) -> None:
    """Makes the last row the first contact. The episode is cut there, not terminated, and reached nothing."""
    rows["cost"][-1] = np.maximum(rows["cost"][-1], 1)
    rows["is_last"][-1] = True
    rows["is_terminal"][-1] = False
    rows["reward"][-1] = 0
    rows["has_next_action"][-1] = False
    rows["next_action"][-1] = 0
    for name, received in (("return_to_go", "reward"), ("cost_to_go", "cost")):
        later = np.cumsum(rows[received][::-1], dtype=np.float64)[::-1]
        rows[name][:-1], rows[name][-1] = later[1:], 0


def _components(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Masks of the 8-connected parts."""
    left = set(zip(*np.nonzero(mask), strict=True))
    while left:
        part, border = set(), {left.pop()}
        while border:
            part |= border
            border = {(y + dy, x + dx) for y, x in border for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= border
        found = np.zeros_like(mask)
        found[tuple(np.array(list(part)).T)] = True
        yield found
