"""An episode as a recording: the messages that the graph would have recorded, for tools that read MCAP."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_collection.conversion.mcap_episode import IMAGE_TOPIC, STEP_TOPIC
from data_collection.conversion.whole import appearing
from data_collection.recording import McapEpisodeWriter
from data_collection.recording.encoding import encode_message, stamp
from safe_policy_core.data.episode_file import Episode
from safe_policy_core.errors import DatasetError

IMAGE_TYPE = "sensor_msgs/msg/Image"
NOT_KEPT = ("observations other than image and pose",)


def write_mcap(path: Path, episode: Episode) -> Path:
    """Writes `path`; `mcap_to_episode` gives the same steps back. Raises `DatasetError` without image and pose."""
    episode = episode.validated()
    if not {"image", "pose"} <= episode.observations.keys() or episode.observations["pose"].shape[1:] != (6,) \
            or episode.executed_action.shape[1:] != (6,):
        raise DatasetError(f"{path}: a recording holds an image, a pose and an action of 6 numbers, the episode has "
                           f"{sorted(episode.observations)} and actions of {episode.executed_action.shape[1:]}")
    images, times = episode.observations["image"], episode.time_ns.tolist()
    specs = episode.metadata["specs"]
    kept = {name: specs["observation"][name] for name in ("image", "pose")}
    if path.exists():
        raise DatasetError(f"{path}: exists already; recordings are never overwritten")
    try:
        with appearing(path) as hidden:
            writer = McapEpisodeWriter(hidden, {**episode.metadata, "specs": {**specs, "observation": kept}})
            try:
                for index, image in enumerate(images):
                    writer.write(IMAGE_TOPIC, IMAGE_TYPE, _image(image, times[index]), times[index],
                                 sequence=index + 1)
                    if index:
                        writer.write(STEP_TOPIC, "safe_policy_interfaces/msg/Step", _step(episode, index - 1, times),
                                     times[index], sequence=index)
                writer.close()
            finally:
                writer.abort()
                writer.part.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error})") from error
    return path


def _image(image: np.ndarray, time_ns: int) -> bytes:
    height, width = image.shape[:2]
    return encode_message(IMAGE_TYPE, {"header": {"stamp": stamp(time_ns)}, "height": height, "width": width,
                                       "encoding": "rgb8", "step": width * 3, "data": image.tobytes()})


def _step(episode: Episode, index: int, times: list[int]) -> bytes:
    pose = episode.observations["pose"]
    return encode_message("safe_policy_interfaces/msg/Step", {
        "header": {"stamp": stamp(times[index])}, "index": index, "pose": pose[index].tolist(),
        "requested_action": episode.policy_action[index].tolist(),
        "executed_action": episode.executed_action[index].tolist(),
        "human_action": episode.human_action[index].tolist(), "intervention": bool(episode.intervention[index]),
        "filter_reason": episode.filter_reason[index], "reward": float(episode.reward[index]),
        "cost": float(episode.cost[index]), "terminated": bool(episode.terminated[index]),
        "truncated": bool(episode.truncated[index]), "next_stamp": stamp(times[index + 1]),
        "next_pose": pose[index + 1].tolist()})
