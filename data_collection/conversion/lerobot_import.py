"""Episodes from a LeRobot dataset v3.0: ours without loss, others as far as they go.

Paths inside a dataset are never taken from its files: only the layout that LeRobot itself writes is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_collection.conversion import lerobot_layout as layout
from safe_policy_core.data.episode_file import Episode, content_hash
from safe_policy_core.data.hdf5_fields import MAX_FIELD_BYTES
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Spec, Specs

_DAMAGE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, MemoryError,
           OverflowError, pa.ArrowException, cv2.error)
"""What pyarrow, OpenCV and imageio raise for damaged files."""


def is_lerobot(folder: Path) -> bool:
    """Whether a folder has the file that every LeRobot dataset has."""
    return (folder / layout.INFO_PATH).is_file()


def lerobot_episodes(folder: Path) -> Iterator[tuple[str, Episode]]:
    """(name, episode) in order. Raises `DatasetError` naming the dataset and what is wrong with it."""
    try:
        dataset = _Dataset(folder)
        for row in dataset.rows:
            yield dataset.episode(row)
    except DatasetError as error:
        raise DatasetError(f"{folder}: {error}") from error
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{folder}: truncated, damaged or not a LeRobot dataset ({reason})") from error


class _Dataset:
    """root: the dataset's folder. features: of info.json. rows: the table of episodes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        info = json.loads(self._file(layout.INFO_PATH).read_text())
        if not isinstance(info, dict) or info.get("codebase_version") != layout.VERSION:
            found = info.get("codebase_version") if isinstance(info, dict) else info
            raise DatasetError(f"{layout.INFO_PATH}: codebase_version: expected {layout.VERSION}, got {found!r}; "
                               "LeRobot's own scripts convert older ones")
        for key, expected in (("data_path", layout.DATA_PATH), ("video_path", layout.VIDEO_PATH)):
            if info.get(key) not in (expected, None):
                raise DatasetError(f"{layout.INFO_PATH}: {key}: expected {expected!r}, got {info[key]!r}")
        self.features: dict[str, Any] = info["features"]
        self.fps = float(info["fps"])
        if not 0 < self.fps <= 1e6:
            raise DatasetError(f"{layout.INFO_PATH}: fps: expected a positive number, got {info['fps']!r}")
        if "action" not in self.features:
            raise DatasetError(f"{layout.INFO_PATH}: features: expected an action, found {sorted(self.features)}")
        folder = root / "meta" / "episodes"
        tables = [self._table(path.relative_to(root).as_posix()) for path in sorted(folder.glob("*/*.parquet"))]
        self.rows = [row for table in tables for row in table.to_pylist()]
        tasks = self._table(layout.TASKS_PATH).to_pydict()
        names = next(values for key, values in tasks.items() if key != "task_index")
        self.tasks = dict(zip(tasks["task_index"], map(str, names), strict=True))
        self._loaded: tuple[str, pa.Table] = ("", pa.table({}))
        self._films: tuple[str, np.ndarray] = ("", np.zeros(0))

    def episode(self, row: Mapping[str, Any]) -> tuple[str, Episode]:
        """The episode that a row of the table of episodes describes."""
        index = int(row["episode_index"])
        table = self._frames(row, index)
        metadata = json.loads(row[layout.METADATA]) if layout.METADATA in row else {}
        ours = bool(metadata)
        specs = Specs.from_json(metadata["specs"]) if ours else self._foreign_specs()
        names = layout.observation_features(specs)
        if not ours:
            names = {name: feature for feature, name in _foreign_names(self.features).items()}
        columns = {name: _numbers(table, name) for name in table.column_names
                   if not pa.types.is_struct(table.schema.field(name).type)}
        steps = table.num_rows
        observations = {}
        for name, feature in names.items():
            rows = self._pictures(row, table, feature, steps) if len(specs.observation[name].shape) == 3 \
                else columns[feature].reshape(steps, *specs.observation[name].shape)
            last = _last(row, name, specs.observation[name]) if ours else rows[-1]
            observations[name] = np.concatenate([rows, last[None]])
        episode = Episode(observations, **_tracks(columns, steps), time_ns=self._times(columns, row, steps),
                          metadata=metadata if ours else self._foreign_metadata(columns, specs))
        if row.get(layout.SHA256) and content_hash(episode) != row[layout.SHA256]:
            raise DatasetError(f"episode {index}: sha256: does not fit the content, it was altered or damaged")
        return str(row.get(layout.NAME) or f"episode_{index:06d}"), episode

    def _frames(self, row: Mapping[str, Any], index: int) -> pa.Table:
        name = layout.DATA_PATH.format(chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"]))
        if self._loaded[0] != name:
            self._loaded = name, self._table(name)
        table = self._loaded[1]
        table = table.filter(pc.equal(table["episode_index"], index))
        found = table["frame_index"].to_pylist()
        if found != list(range(int(row["length"]))) or not found:
            raise DatasetError(f"{name}: episode {index}: frame_index: expected 0 to {int(row['length']) - 1} in order")
        return table

    def _pictures(self, row: Mapping[str, Any], table: pa.Table, feature: str, steps: int) -> np.ndarray:
        shape = tuple(self.features[feature]["shape"])
        if self.features[feature]["dtype"] == "image":
            images = np.stack([_decoded(item["bytes"]) for item in table[feature].to_pylist()])
        else:
            name = layout.VIDEO_PATH.format(video_key=feature, chunk_index=int(row[f"videos/{feature}/chunk_index"]),
                                            file_index=int(row[f"videos/{feature}/file_index"]))
            if self._films[0] != name:
                self._films = name, iio.imread(self._file(name), plugin="FFMPEG")
            first = round(float(row[f"videos/{feature}/from_timestamp"]) * self.fps)
            images = self._films[1][first:first + steps]
        if len(images) != steps or images.shape[1:] != shape:
            raise DatasetError(f"{feature}: expected {steps} pictures of {shape}, got {images.shape}")
        return images

    def _times(self, columns: Mapping[str, np.ndarray], row: Mapping[str, Any], steps: int) -> np.ndarray:
        if "time_ns" in columns and layout.LAST_TIME in row:
            return np.append(columns["time_ns"], np.int64(row[layout.LAST_TIME]))
        return (np.arange(steps + 1) * (1e9 / self.fps)).astype(np.int64)

    def _foreign_specs(self) -> Specs:
        observation = {}
        for feature, name in _foreign_names(self.features).items():
            description = self.features[feature]
            picture = description["dtype"] in ("image", "video")
            shape = tuple(int(n) for n in description["shape"])
            observation[name] = Spec(f"observation/{name}", shape, "uint8" if picture else "float32",
                                     0 if picture else None, 255 if picture else None)
        return Specs(observation, Spec("action", tuple(int(n) for n in self.features["action"]["shape"])))

    def _foreign_metadata(self, columns: Mapping[str, np.ndarray], specs: Specs) -> dict[str, Any]:
        task = self.tasks.get(int(columns["task_index"][0]), "unknown") if "task_index" in columns else "unknown"
        # LeRobot has no observation after the last step; the one before it stands there, and says so.
        found = {"task": task, "source": self.root.name, "last_observation": "repeated", "specs": specs.to_json()}
        return found if "next.cost" in self.features else found | {"labels": "none"}

    def _table(self, name: str) -> pa.Table:
        file = pq.ParquetFile(self._file(name), page_checksum_verification=True)
        claimed = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
        if claimed > MAX_FIELD_BYTES:
            raise DatasetError(f"{name}: claims {claimed} bytes")
        return file.read()

    def _file(self, name: str) -> Path:
        path = self.root / name
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise DatasetError(f"{name}: leads out of the dataset's folder")
        if not path.is_file():
            raise DatasetError(f"{name}: missing")
        return path


def _foreign_names(features: Mapping[str, Any]) -> dict[str, str]:
    """Feature -> observation for the features of other programs that an episode can hold."""
    names = {}
    for feature, description in features.items():
        if feature.startswith("observation.") and (description["dtype"] in ("image", "video")
                                                   or str(description["dtype"]).startswith("float")):
            names[feature] = feature.removeprefix(layout.IMAGE_PREFIX).removeprefix("observation.")
    if not names or len(set(names.values())) != len(names):
        raise DatasetError(f"{layout.INFO_PATH}: features: expected observations of different names, got {list(names)}")
    return names


def _tracks(columns: Mapping[str, np.ndarray], steps: int) -> dict[str, Any]:
    """The step fields, with what is not there filled in by what it would be for a policy without a person."""
    zeros, no = np.zeros(steps, np.float32), np.zeros(steps, bool)
    action = columns["action"].reshape(steps, -1).astype(np.float32)
    found: dict[str, Any] = {"executed_action": action,
                             "policy_action": columns.get("policy_action", action),
                             "human_action": columns.get("human_action", np.zeros_like(action))}
    for feature, (name, dtype) in layout.SCALARS.items():
        values = columns.get(feature)
        found[name] = (zeros if dtype == "float32" else no) if values is None else values.reshape(steps).astype(dtype)
    truncated, done = found["truncated"].copy(), columns.get("next.done", no).reshape(steps).astype(bool)
    if "next.terminated" not in columns:
        found["terminated"] = done & ~truncated
    # A dataset of other programs need not say how its episodes end; the recording ended, that is certain.
    if "next.terminated" not in columns or "next.truncated" not in columns:
        truncated[-1] |= not found["terminated"][-1]
    reasons = columns.get("filter_reason")
    return found | {"truncated": truncated, "filter_reason": [""] * steps if reasons is None else reasons.tolist()}


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return column.to_numpy(zero_copy_only=False)


def _last(row: Mapping[str, Any], name: str, spec: Spec) -> np.ndarray:
    value = row[layout.LAST + name]
    return _decoded(value) if isinstance(value, bytes) else np.array(value, spec.dtype)


def _decoded(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError("a picture is damaged")
    return image[..., ::-1]
