"""What offline data brings to a configuration, and what a configuration does with the data before training."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.data.virtual_obstacles import ObstacleArtist, VirtualObstacles, with_copies
from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.interfaces import Learner
from safe_policy_core.vision import Projection, ToolViewConfig

Config = TypeVar("Config")
VIEW, OBSTACLES = "tool_view", "virtual_obstacles"
"""The fields by which a method's configuration asks for either."""


def recorded_projection(store: EpisodeStore) -> Projection | None:
    """The camera's calibration that the episodes were recorded with; None when they do not say.

    Raises `DatasetError` when they were recorded by cameras that stood differently.
    """
    rows = {tuple(summary.metadata.get("calibration", {}).get("projection") or ()) for summary in store.summaries}
    rows.discard(())
    if len(rows) > 1:
        raise DatasetError(f"episodes: {len(rows)} different camera calibrations (metadata calibration.projection); "
                           "train on the episodes of one")
    return Projection.from_row(rows.pop()) if rows else None


def calibrated(config: Config, store: EpisodeStore) -> Config:
    """The configuration with the episodes' projection in its tool view, if it has a view and they have one."""
    view = getattr(config, VIEW, None)
    if not isinstance(view, ToolViewConfig) or view.projection is not None:
        return config
    projection = recorded_projection(store)
    if projection is None:
        return config
    return dataclasses.replace(config, **{VIEW: dataclasses.replace(view, projection=projection.row)})  # type: ignore[type-var]


def obstacle_artist(learner: Learner, store: EpisodeStore) -> ObstacleArtist | None:
    """What adds virtual obstacles to episodes like those of `store`, or None when the learner's `config` asks for none.

    Raises `ConfigurationError` when they are asked for and no projection is known.
    """
    config = getattr(learner, "config", None)
    settings = getattr(config, OBSTACLES, None)
    if not isinstance(settings, VirtualObstacles) or settings.copies == 0:
        return None
    view = getattr(config, VIEW, None)
    if not isinstance(view, ToolViewConfig) or view.projection is None:
        raise ConfigurationError(f"{OBSTACLES}.copies: {settings.copies} need a calibrated camera; record with one "
                                 f"(metadata calibration.projection) or set {VIEW}.projection")
    return ObstacleArtist(settings, Projection.from_row(view.projection), store, getattr(learner, "seed", 0))


def with_virtual_obstacles(store: EpisodeStore, learner: Learner) -> EpisodeStore:
    """The episodes with the copies that the learner's configuration asks for."""
    artist = obstacle_artist(learner, store)
    return store if artist is None else with_copies(store, artist)
