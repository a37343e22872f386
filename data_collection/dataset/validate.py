"""Whether whole files are also sensible training data. `check` asks if bytes are intact, this asks what they say."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_collection.dataset.summary import Row
from safe_policy_core.data.episode_file import read_pictures
from safe_policy_core.errors import DatasetError

PERIOD_TOLERANCE = 0.5
"""Share of the median control period by which a step may be longer or shorter."""
FROZEN_PICTURES = 5
"""So many identical pictures in a row while the arm moves are a camera that hangs."""
MOVING = 1e-3
"""[m] The tool moves when it goes further than this in a step."""
BOUND_TOLERANCE = 1e-4
"""By how much an action may exceed its bounds; float32 and rescaling."""
WORKSPACE_MARGIN = 0.05
"""[m] How far outside the recorded workspace a measured tool may be."""


def doubts(row: Row, pictures: bool = True) -> list[str]:
    """One line for each thing in an episode that a person should look at. pictures: read those too."""
    found = [*_actions(row), *_times(row), *_poses(row), *_labels(row)]
    if pictures and "image" not in row.episode.observations:
        with contextlib.suppress(DatasetError):  # an episode without pictures
            found += _frozen(row, read_pictures(row.path))
    return found


def differing_specs(rows: list[Row]) -> dict[Path, str]:
    """Episodes whose specs are not those of most of the others: they cannot be trained on together."""
    texts = {id(row): str(row.episode.specs.to_json()) for row in rows}
    most = Counter(texts.values()).most_common(1)[0][0] if rows else ""
    usual = next((row.episode.specs for row in rows if texts[id(row)] == most), None)
    return {row.path: str(usual.difference(row.episode.specs)) for row in rows if usual and texts[id(row)] != most}


def _actions(row: Row) -> Iterator[str]:
    spec = row.episode.specs.action
    for name in ("executed_action", "policy_action", "human_action"):
        values = getattr(row.episode, name)
        for bound, side in ((spec.low, -1), (spec.high, 1)):
            if bound is not None:
                excess = side * (values - np.asarray(bound, np.float32))
                if excess.max() > BOUND_TOLERANCE:
                    step = int(np.argwhere(excess > BOUND_TOLERANCE)[0][0])
                    yield f"{name}: {excess.max():.3g} outside its bound {bound}, first in step {step}"
    if not row.episode.executed_action.any():
        yield "executed_action: all zeros, the arm was never moved"


def _times(row: Row) -> Iterator[str]:
    periods = np.diff(row.episode.time_ns) / 1e9
    if (periods <= 0).any():
        yield f"time_ns: step {int((periods <= 0).argmax())} does not advance"
        return
    usual = float(np.median(periods))
    strange = np.abs(periods - usual) > PERIOD_TOLERANCE * usual
    if strange.any():
        step = int(np.abs(periods - usual).argmax())
        yield f"time_ns: {int(strange.sum())} uneven steps, step {step} took {periods[step]:.3f} s of {usual:.3f} s"


def _poses(row: Row) -> Iterator[str]:
    pose, limits = row.episode.observations.get("pose"), row.episode.metadata.get("limits") or {}
    if pose is None or "workspace_low" not in limits:
        return
    low, high = np.array(limits["workspace_low"], float), np.array(limits["workspace_high"], float)
    outside = np.maximum(low - pose[:, :3], pose[:, :3] - high).max(1)
    if outside.max() > WORKSPACE_MARGIN:
        yield f"observation/pose: {outside.max():.3f} m outside the workspace in observation {int(outside.argmax())}"


def _labels(row: Row) -> Iterator[str]:
    episode = row.episode
    if not (episode.terminated[-1] or episode.truncated[-1]):
        yield "terminated, truncated: neither at the last step"
    if not np.isin(episode.cost, (0, 1)).all():
        yield f"cost: expected 0 or 1, found {np.setdiff1d(episode.cost, (0, 1))[0]}"
    recorded = episode.metadata.get("violation")
    if recorded is not None and bool(recorded) != bool((episode.cost > 0).any()):
        yield f"cost: the recorder says violation {bool(recorded)}, the labels say {not recorded}"
    if episode.metadata.get("labels") == "none":
        yield "reward, cost: nobody has labelled this episode yet"


def _frozen(row: Row, images: np.ndarray) -> Iterator[str]:
    same = (images[1:] == images[:-1]).all((1, 2, 3))
    pose = row.episode.observations.get("pose")
    if pose is not None:
        same &= np.linalg.norm(np.diff(pose[:, :3], axis=0), axis=1) > MOVING
    run = longest = 0
    for flag in same:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    if longest >= FROZEN_PICTURES:
        yield f"observation/image: the same picture {longest + 1} times in a row while the arm moved"
