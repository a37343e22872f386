"""One recording to one training episode at the control rate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_collection.conversion.images import Crop, fit_image
from data_collection.conversion.recording_file import RecordingFile
from data_collection.conversion.sqlite_recording import SqliteRecording
from data_collection.pixels import rgb_from_bytes
from safe_policy_core.data.episodes import Episode, write_episode
from safe_policy_core.errors import DatasetError

log = logging.getLogger(__name__)

Recording = RecordingFile | SqliteRecording
STEP_TOPIC = "/episode/step"
IMAGE_TOPIC = "/camera/color/image_raw"

MAX_IMAGE_SHIFT = 0.06
"""[s] A frame that the policy saw and the recorder missed is replaced by the nearest one within this time (half a
control period and a little); every replacement is counted in the metadata."""


def mcap_to_episode(path: Path | str, image_size: tuple[int, int] | None = None, crop: Crop | None = None) -> Episode:
    """The episode in recording `path`: rows of `STEP_TOPIC` with the images of equal stamps.

    image_size: (height, width) of the pictures in the episode; by default that of the recorded
    specs. crop: window of the raw picture, see `fit_image`. Raises `DatasetError` naming the file
    and the field: a missing topic, no steps, a gap in the steps, a missing picture, damage.
    """
    recording = RecordingFile(path)
    try:
        return _episode(recording, image_size, crop)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def convert_file(path: Path | str, output: Path | str | None = None, image_size: tuple[int, int] | None = None,
                 crop: Crop | None = None) -> tuple[Path, Episode]:
    """Converts `NAME.mcap` to `NAME.h5`, by default beside it. Returns the file's path and the episode."""
    target = Path(output) if output is not None else Path(path).with_suffix(".h5")
    episode = mcap_to_episode(path, image_size, crop)
    write_episode(target, episode)
    return target, episode


def _episode(recording: RecordingFile, image_size: tuple[int, int] | None, crop: Crop | None) -> Episode:
    return episode_from_steps([recording], _steps(recording), recording.episode, image_size, crop)


def episode_from_steps(recordings: Sequence[Recording], steps: list[Any], metadata: dict[str, Any],
                       image_size: tuple[int, int] | None, crop: Crop | None) -> Episode:
    """The episode that `steps` tell, with the pictures of equal stamps from `recordings`.

    metadata: the recorder's, with specs. Raises `DatasetError` naming the file and the field.
    """
    path = recordings[0].path
    times = np.array([_ns(step.header.stamp) for step in steps] + [_ns(steps[-1].next_stamp)], np.int64)
    if (np.diff(times) <= 0).any():
        raise DatasetError(f"{path}: {STEP_TOPIC}: expected growing stamps, step "
                           f"{int(np.argmax(np.diff(times) <= 0))} does not advance")
    specs = _specs(path, metadata, image_size)
    size = tuple(specs["observation"]["image"]["shape"][:2])
    images, replaced = _images(recordings, times, size, crop)

    def column(field: str) -> np.ndarray:
        return np.array([getattr(step, field) for step in steps], np.float32)

    def flags(field: str) -> np.ndarray:
        return np.array([getattr(step, field) for step in steps], bool)

    terminated, truncated = flags("terminated"), flags("truncated")
    interrupted = not (terminated[-1] or truncated[-1])
    # A recording that was cut off ends without the task having ended: that is what truncated means.
    truncated[-1] |= interrupted
    summary = recordings[0].summary
    metadata = {**metadata, "specs": specs, "dropped": summary.get("dropped", {}),
                "clocks": summary.get("clocks", {}), "replaced_images": replaced,
                "interrupted": interrupted, "recovered": bool(summary.get("recovered", False)),
                "source": path.name, "crop": list(crop) if crop else None}
    pose = np.concatenate([column("pose"), np.array([steps[-1].next_pose], np.float32)])
    return Episode(observations={"image": images, "pose": pose}, executed_action=column("executed_action"),
                   policy_action=column("requested_action"), human_action=column("human_action"),
                   intervention=flags("intervention"), filter_reason=[step.filter_reason for step in steps],
                   reward=column("reward"), cost=column("cost"), terminated=terminated, truncated=truncated,
                   time_ns=times, metadata=metadata)


def _steps(recording: RecordingFile) -> list[Any]:
    """The steps in order. Raises `DatasetError` unless they are 0, 1, 2, ... and each begins where the last ended."""
    steps = list(recording.messages(STEP_TOPIC))
    for expected, step in enumerate(steps):
        if step.index != expected:
            raise DatasetError(f"{recording.path}: {STEP_TOPIC} index: expected {expected}, got {step.index}; "
                               "steps are missing or from two episodes")
        if expected and _ns(step.header.stamp) != _ns(steps[expected - 1].next_stamp):
            raise DatasetError(f"{recording.path}: {STEP_TOPIC} header.stamp: step {expected} does not begin where "
                               f"step {expected - 1} ended")
    return steps


def _specs(path: Path, metadata: dict[str, Any], image_size: tuple[int, int] | None) -> dict[str, Any]:
    """Specs as JSON, with the pictures' shape replaced by `image_size`."""
    specs = metadata.get("specs") or {}
    try:
        observation = specs["observation"]
        image = observation["image"]
        names = set(observation)
        shape = list(image["shape"])
    except (TypeError, KeyError) as error:
        raise DatasetError(f"{path}: metadata specs: missing or without an image ({error!r})") from error
    if names != {"image", "pose"} or len(shape) != 3:
        raise DatasetError(f"{path}: metadata specs: expected observations image and pose, got "
                           f"{sorted(names)} with an image of shape {shape}")
    if image_size is not None:
        shape[:2] = image_size
    return {**specs, "observation": {**observation, "image": {**image, "shape": shape}}}


def _images(recordings: Sequence[Recording], times: np.ndarray, size: tuple[int, int],
            crop: Crop | None) -> tuple[np.ndarray, int]:
    """(T + 1, *size, 3) uint8 for the stamps `times` [ns], and how many had to be replaced by a neighbour."""
    wanted = times.tolist()
    exact = set(wanted)
    found = _pictures(recordings, lambda stamp: stamp in exact, size, crop)
    missing = [time for time in wanted if time not in found]
    if missing:
        limit = int(MAX_IMAGE_SHIFT * 1e9)
        # Nothing is skipped this time: if a picture is missing because its chunk is damaged, that must come out.
        spare = _pictures(recordings, lambda stamp: min(abs(stamp - time) for time in missing) <= limit, size, crop,
                          skip=False)
        for time in missing:
            nearest = min(spare, key=lambda stamp: abs(stamp - time), default=None)
            if nearest is None or abs(nearest - time) > limit:
                raise DatasetError(f"{recordings[0].path}: {IMAGE_TOPIC}: no picture within {MAX_IMAGE_SHIFT} s of "
                                   f"observation {wanted.index(time)} (stamp {time} ns)")
            log.warning("%s: observation %d: its picture is missing, the one %+.0f ms beside it is used",
                        recordings[0].path.name, wanted.index(time), (nearest - time) / 1e6)
            found[time] = spare[nearest]
    return np.stack([found[time] for time in wanted]), len(missing)


def _pictures(recordings: Sequence[Recording], keep: Callable[[int], bool], size: tuple[int, int],
              crop: Crop | None, skip: bool = True) -> dict[int, np.ndarray]:
    """The pictures whose stamp [ns] passes `keep`, by stamp. skip: others are not read where that can be avoided."""
    return {stamp: fit_image(rgb_from_bytes(m.data, m.height, m.width, m.step, m.encoding), size, crop)
            for recording in recordings if len(recordings) == 1 or IMAGE_TOPIC in recording.topics
            for m in recording.messages(IMAGE_TOPIC, keep if skip else None) if keep(stamp := _ns(m.header.stamp))}


def _ns(stamp: Any) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec
