"""Episodes from bags that this project did not record: `ros2 bag record`, realsense-ros, others.

A bag of our own graph has the steps in it and becomes one episode for each run. Any other needs pictures and the
tool's pose; it is cut at a control rate, the action is the change of the pose in a step (as in FOSP, appendix D.1),
and nobody has labelled it yet.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_collection.conversion.images import Crop, fit_image
from data_collection.conversion.mcap_episode import STEP_TOPIC, Recording, episode_from_steps
from data_collection.conversion.recording_file import RecordingFile
from data_collection.conversion.sqlite_recording import SqliteRecording
from data_collection.pixels import rgb_from_bytes
from safe_policy_core.data.episode_file import Episode
from safe_policy_core.errors import ConfigurationError, DatasetError, SpecError
from safe_policy_core.geometry import Pose, inverse, multiply, rotation_vector_from_quaternion
from safe_policy_core.interfaces import Spec, Specs

EPISODE_TOPIC = "/episode/state"
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
POSE_TYPES = ("geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/TransformStamped")
TOOL_DOWN = np.array([1.0, 0.0, 0.0, 0.0])
"""Quaternion that the rotation of the pose is relative to, as in the gate's configuration."""
METADATA_FILE = "metadata.yaml"
STORAGES: dict[str, Callable[[Path], Recording]] = {".mcap": RecordingFile, ".db3": SqliteRecording}
"""Of `ros2 bag`, by the suffix of their files."""


@dataclass(frozen=True)
class BagOptions:
    """How to cut bags that other programs recorded, without steps in them."""

    image_topic: str | None = None
    """Topic of the pictures; None picks the only one there is."""
    pose_topic: str | None = None
    """Topic of the tool's pose; None picks the only one there is."""
    rate: float = 10.0
    """Control steps a second [Hz]."""
    translation_step: float = 0.015
    """What an action of 1 means [m]."""
    rotation_step: float = 0.05
    """What an action of 1 means [rad]."""
    max_gap: float = 0.2
    """A picture or pose older than this ends an episode [s]."""

    def __post_init__(self) -> None:
        for name in ("rate", "translation_step", "rotation_step", "max_gap"):
            if not getattr(self, name) > 0:
                raise DatasetError(f"{name}: expected a positive number, got {getattr(self, name)}")


def is_bag(folder: Path) -> bool:
    """Whether a folder is one that `ros2 bag` made."""
    return (folder / METADATA_FILE).is_file()


def bag_files(folder: Path) -> list[Path]:
    """The files of a bag, in order. Raises `DatasetError` for one that is packed as a whole or in another storage."""
    files = [path for path in folder.iterdir() if path.suffix in STORAGES and not path.is_symlink()]
    if not files:
        raise DatasetError(f"{folder}: no *.mcap or *.db3 in this bag; `ros2 bag convert` makes them")
    # ros2 bag numbers the parts of a split bag: _0, _1, ..., _10.
    return sorted(files, key=lambda path: (len(path.name), path.name))


def bag_episodes(files: list[Path], size: tuple[int, int] | None = None, crop: Crop | None = None,
                 options: BagOptions | None = None) -> Iterator[tuple[str, Episode]]:
    """(name, episode) from the parts of one bag. Raises `DatasetError` naming the file and what is missing."""
    recordings = [STORAGES[path.suffix](path) for path in files]
    name = files[0].stem.removesuffix("_0")
    try:
        if any(STEP_TOPIC in recording.topics for recording in recordings):
            yield from _own(name, recordings, size, crop)
            return
        for index, episode in enumerate(_foreign(recordings, size or (64, 64), crop, options or BagOptions())):
            yield f"{name}-{index:04d}", episode
    except (ValueError, AttributeError, SpecError, ConfigurationError) as error:
        raise DatasetError(f"{files[0]}: {error}") from error
    except DatasetError as error:
        # What is wrong with one message does not know in which file it is.
        named = any(str(error).startswith(str(path)) for path in files)
        raise error if named else DatasetError(f"{files[0]}: {error}") from error


def _own(name: str, recordings: list[Recording], size: tuple[int, int] | None,
         crop: Crop | None) -> Iterator[tuple[str, Episode]]:
    """`ros2 bag record` on our graph: steps that begin again at 0 are the next episode; its state has the specs."""
    runs: list[list[Any]] = []
    for step in _all(recordings, STEP_TOPIC):
        if step.index == 0 or not runs:
            runs.append([])
        runs[-1].append(step)
    states = [state for state in _all(recordings, EPISODE_TOPIC) if state.metadata_json]
    if not states:
        raise DatasetError(f"{recordings[0].path}: {EPISODE_TOPIC}: expected the episodes' specs, found none; "
                           "record that topic too")
    for index, steps in enumerate(runs):
        begin = _ns(steps[-1].next_stamp)
        state = max((s for s in states if _ns(s.header.stamp) <= begin), default=states[0],
                    key=lambda s: _ns(s.header.stamp))
        metadata = {**json.loads(state.metadata_json), "episode_id": state.episode_id, "task": state.task,
                    "seed": int(state.seed), "operator": state.operator_name}
        yield state.episode_id or f"{name}-{index:04d}", episode_from_steps(recordings, steps, metadata, size, crop)


def _foreign(recordings: list[Recording], size: tuple[int, int], crop: Crop | None,
             options: BagOptions) -> Iterator[Episode]:
    image_topic = _topic(recordings, IMAGE_TYPES, options.image_topic, "image_topic", _colour_first)
    pose_topic = _topic(recordings, POSE_TYPES, options.pose_topic, "pose_topic", _measured_first)
    stamped = sorted((_ns(m.header.stamp), _pose(m)) for m in _all(recordings, pose_topic) if _ns(m.header.stamp))
    pose_times = np.array([time for time, _ in stamped], np.int64)
    if len(pose_times) < 2:
        raise DatasetError(f"{recordings[0].path}: {pose_topic}: expected stamped poses, found {len(pose_times)}")
    frames = _Frames(recordings, image_topic, size, crop)
    period, gap = int(1e9 / options.rate), int(options.max_gap * 1e9)
    begin, end = max(pose_times[0], frames.times[0]), min(pose_times[-1], frames.times[-1])
    ticks = np.arange(begin, end + 1, period, dtype=np.int64)
    rows = []
    for tick in ticks.tolist():
        # The latest that was there at the time of the tick: an observation must not know the future.
        image = int(np.searchsorted(frames.times, tick, side="right")) - 1
        pose = int(np.searchsorted(pose_times, tick, side="right")) - 1
        if tick - frames.times[image] > gap or tick - pose_times[pose] > gap:
            if len(rows) > 1:
                yield _cut(rows, frames, options, recordings[0].path, image_topic, pose_topic)
            rows = []
            continue
        rows.append((tick, image, stamped[pose][1]))
    if len(rows) > 1:
        yield _cut(rows, frames, options, recordings[0].path, image_topic, pose_topic)


def _cut(rows: list[tuple[int, int, Pose]], frames: _Frames, options: BagOptions, source: Path, image_topic: str,
         pose_topic: str) -> Episode:
    poses = np.array([pose.to_vector(TOOL_DOWN) for _, _, pose in rows], np.float32)
    scale = np.array([options.translation_step] * 3 + [options.rotation_step] * 3)
    moved = np.array([[*(b.position - a.position),
                       *rotation_vector_from_quaternion(multiply(b.quaternion, inverse(a.quaternion)))]
                      for (_, _, a), (_, _, b) in itertools.pairwise(rows)])
    actions = np.clip(moved / scale, -1, 1).astype(np.float32)
    steps = len(actions)
    images = np.stack([frames.picture(image) for _, image, _ in rows])
    specs = Specs({"image": Spec("observation/image", images.shape[1:], "uint8", 0, 255),
                   "pose": Spec("observation/pose", (6,), unit="m, rad")}, Spec("action", (6,), low=-1.0, high=1.0),
                  {"max_translation_step": options.translation_step, "max_rotation_step": options.rotation_step})
    clipped = int((np.abs(moved) > scale * (1 + 1e-6)).any(1).sum())
    none, no = np.zeros(steps, np.float32), np.zeros(steps, bool)
    truncated = no.copy()
    truncated[-1] = True
    return Episode({"image": images, "pose": poses}, actions, actions, np.zeros_like(actions), no, [""] * steps, none,
                   none, no, truncated, np.array([tick for tick, _, _ in rows], np.int64),
                   {"task": "unknown", "labels": "none", "actions": "change of the measured pose",
                    "clipped_steps": clipped, "source": source.name, "image_topic": image_topic,
                    "pose_topic": pose_topic, "specs": specs.to_json()})


class _Frames:
    """The pictures of a topic, fitted, in the order of time. times: (N,) stamps [ns]."""

    def __init__(self, recordings: list[Recording], topic: str, size: tuple[int, int], crop: Crop | None) -> None:
        found = sorted(((_ns(m.header.stamp), fit_image(_pixels(m), size, crop)) for m in _all(recordings, topic)
                        if _ns(m.header.stamp)), key=lambda item: item[0])
        if not found:
            raise DatasetError(f"{recordings[0].path}: {topic}: no stamped pictures")
        self.times = np.array([time for time, _ in found], np.int64)
        self._images = [image for _, image in found]

    def picture(self, index: int) -> np.ndarray:
        return self._images[index]


def _pixels(message: Any) -> np.ndarray:
    """RGB from an Image or a CompressedImage."""
    if not hasattr(message, "format"):
        return rgb_from_bytes(message.data, message.height, message.width, message.step, message.encoding)
    try:
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no data, or more pixels than OpenCV takes
        image = None
    if image is None:
        raise DatasetError(f"compressed image: cannot be decoded (format {message.format!r})")
    return np.ascontiguousarray(image[..., ::-1])


def _pose(message: Any) -> Pose:
    transform = getattr(message, "transform", None)
    place, turn = (transform.translation, transform.rotation) if transform is not None else \
        (message.pose.position, message.pose.orientation)
    position, quaternion = np.array([place.x, place.y, place.z]), np.array([turn.x, turn.y, turn.z, turn.w])
    norm = float(np.linalg.norm(quaternion))
    if not np.isfinite(position).all() or not 0.9 < norm < 1.1:
        raise DatasetError(f"pose: expected finite numbers and a unit quaternion, got {position} and {quaternion}")
    return Pose(position, quaternion / norm)


def _topic(recordings: list[Recording], types: tuple[str, ...], wanted: str | None, option: str,
           order: Callable[[str], tuple[bool, ...]]) -> str:
    """The topic to read: the wanted one, or the best of those of the types."""
    found = sorted({topic for recording in recordings for topic, kind in recording.types.items() if kind in types})
    if wanted is not None:
        if wanted not in found:
            raise DatasetError(f"{recordings[0].path}: {option}: {wanted} has no messages of {' or '.join(types)}; "
                               f"such topics: {', '.join(found) or 'none'}")
        return wanted
    best = sorted(found, key=order)
    if not best or (len(best) > 1 and order(best[0]) == order(best[1])):
        raise DatasetError(f"{recordings[0].path}: {option}: expected one topic of {' or '.join(types)}, found "
                           f"{', '.join(found) or 'none'}; name it with --bag.{option.replace('_', '-')}")
    return best[0]


def _colour_first(topic: str) -> tuple[bool, ...]:
    """realsense-ros: /camera/camera/color/image_raw among depth, infra and compressed ones."""
    return not topic.endswith("/color/image_raw"), "depth" in topic or "infra" in topic, "compressed" in topic


def _measured_first(topic: str) -> tuple[bool, ...]:
    return (not topic.endswith("current_pose"), "target" in topic)


def _all(recordings: list[Recording], topic: str) -> Iterator[Any]:
    for recording in recordings:
        if topic in recording.topics:
            yield from recording.messages(topic)


def _ns(stamp: Any) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec
