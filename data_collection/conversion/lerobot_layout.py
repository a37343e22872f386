"""What a LeRobot dataset (format v3.0) looks like on disk, and which of its columns are which of ours.

A frame is a step: its observation, its action, and what the action led to (`next.*`). The observation after the last
step has no frame; it is kept in columns of our own in the table of episodes, with the metadata, as LeRobot's reader
takes any columns there.
"""

from __future__ import annotations

from typing import Any

from safe_policy_core.interfaces import Specs

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
TASKS_PATH, INFO_PATH, STATS_PATH = "meta/tasks.parquet", "meta/info.json", "meta/stats.json"
FILES_PER_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
DEFAULT_FEATURES = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64",
                    "task_index": "int64"}
SCALARS = {"next.reward": ("reward", "float32"), "next.cost": ("cost", "float32"),
           "next.terminated": ("terminated", "bool"), "next.truncated": ("truncated", "bool"),
           "intervention": ("intervention", "bool")}
"""Feature -> attribute of `Episode` and dtype."""
ACTIONS = {"action": "executed_action", "policy_action": "policy_action", "human_action": "human_action"}
"""Only `action` may begin with that word: LeRobot would train a policy to output the others too."""
IMAGE_PREFIX, STATE = "observation.images.", "observation.state"
NAME, METADATA, SHA256, LAST_TIME, LAST = ("safe_policy.name", "safe_policy.metadata", "safe_policy.sha256",
                                           "safe_policy.last_time_ns", "safe_policy.last.")
"""Columns of our own in the table of episodes."""
_POSE_NAMES = ["x", "y", "z", "rotation_x", "rotation_y", "rotation_z"]


def observation_features(specs: Specs) -> dict[str, str]:
    """Observation -> feature. The first vector is the state, as LeRobot's policies want it."""
    features, state = {}, False
    for name, spec in specs.observation.items():
        if len(spec.shape) == 3:
            features[name] = IMAGE_PREFIX + name
        else:
            features[name] = f"observation.{name}" if state else STATE
            state = True
    return features


def info_features(specs: Specs, video: bool, fps: int) -> dict[str, Any]:
    """`features` of info.json."""
    found: dict[str, Any] = {}
    for name, feature in observation_features(specs).items():
        shape = list(specs.observation[name].shape)
        if feature.startswith(IMAGE_PREFIX):
            found[feature] = {"dtype": "video" if video else "image", "shape": shape,
                              "names": ["height", "width", "channels"]}
            if video:
                found[feature]["info"] = {"video.height": shape[0], "video.width": shape[1], "video.codec": "h264",
                                          "video.pix_fmt": "yuv420p", "video.is_depth_map": False, "video.fps": fps,
                                          "video.channels": 3, "has_audio": False}
        else:
            found[feature] = {"dtype": specs.observation[name].dtype, "shape": shape, "names": _names(shape)}
    shape = list(specs.action.shape)
    found |= {feature: {"dtype": "float32", "shape": shape, "names": _names(shape)} for feature in ACTIONS}
    found |= {feature: _scalar(dtype) for feature, (_, dtype) in SCALARS.items()}
    found |= {"next.done": _scalar("bool"), "filter_reason": _scalar("string"), "time_ns": _scalar("int64")}
    return found | {feature: _scalar(dtype) for feature, dtype in DEFAULT_FEATURES.items()}


def _scalar(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1], "names": None}


def _names(shape: list[int]) -> list[str] | None:
    return _POSE_NAMES if shape == [6] else None
