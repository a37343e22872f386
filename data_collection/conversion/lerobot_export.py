"""Episodes to a LeRobot dataset v3.0, written with pyarrow; pictures as PNG (lossless) or as H.264 video."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import imageio.v3 as iio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_collection.conversion import lerobot_layout as layout
from data_collection.conversion.whole import appearing
from safe_policy_core.data.episode_file import Episode, content_hash
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs

NOT_KEPT = ("times of the steps as LeRobot's timestamps, which are multiples of 1/fps (ours are the feature time_ns)",
            "the observation after the last step as a frame, and metadata, for tools that write the table of episodes "
            "anew (they are in columns of our own there)")
NOT_KEPT_IN_VIDEO = ("exact pixels: H.264 in yuv420p changes them",)
_QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class LeRobotWriter:
    """Writes a dataset episode by episode; `close` completes it. Raises `DatasetError` for specs that differ."""

    def __init__(self, root: Path, video: bool = False) -> None:
        self.root, self.video = root, video
        self._specs: Specs | None = None
        self._fps = 0
        self._rows: list[dict[str, Any]] = []
        self._tasks: dict[str, int] = {}
        self._frames = 0
        self._file_index = 0
        self._writer: pq.ParquetWriter | None = None
        self._samples: dict[str, list[np.ndarray]] = {}

    def add(self, name: str, episode: Episode) -> None:
        """Appends one episode."""
        episode = episode.validated()
        if self._specs is None:
            self._specs = episode.specs
            period = float(np.median(np.diff(episode.time_ns))) / 1e9
            self._fps = max(1, round(1 / period)) if period > 0 else 10
        elif difference := self._specs.difference(episode.specs):
            raise DatasetError(f"{name}: specs differ from the other episodes: {difference}")
        index, steps = len(self._rows), len(episode)
        task = str(episode.metadata.get("task") or "unknown")
        task_index = self._tasks.setdefault(task, len(self._tasks))
        columns = self._columns(episode)
        numbers = {"timestamp": np.arange(steps, dtype=np.float32) / np.float32(self._fps),
                   "frame_index": np.arange(steps), "episode_index": np.full(steps, index),
                   "index": np.arange(self._frames, self._frames + steps), "task_index": np.full(steps, task_index)}
        row: dict[str, Any] = {
            "episode_index": index, "tasks": [task], "length": steps, "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + steps, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        arrays = {name: pa.array(values.astype(layout.DEFAULT_FEATURES[name])) for name, values in numbers.items()}
        arrays = {name: _column(values) for name, values in columns.items()} | arrays
        row |= self._write_pictures(episode, index, arrays)
        row |= self._write_table(pa.table(arrays))
        row |= self._own_columns(name, episode)
        for feature, values in {**columns, **numbers}.items():
            if values.dtype.kind != "U":
                row |= {f"stats/{feature}/{key}": value for key, value in _statistics(values).items()}
                self._samples.setdefault(feature, []).append(values)
        self._rows.append(row)
        self._frames += steps

    def close(self) -> None:
        """Writes info, tasks, statistics and the table of episodes. Raises `DatasetError` without episodes."""
        if self._specs is None:
            raise DatasetError("no episodes to write")
        if self._writer is not None:
            self._writer.close()
        _write_parquet(self._path(layout.EPISODES_PATH), pa.Table.from_pylist(self._rows))
        _write_parquet(self._path(layout.TASKS_PATH), _task_table(list(self._tasks)))
        statistics = {feature: _shaped(feature, _statistics(np.concatenate(values)))
                      for feature, values in self._samples.items()}
        self._path(layout.STATS_PATH).write_text(json.dumps(statistics, indent=1))
        info = {"codebase_version": layout.VERSION, "robot_type": "franka", "total_episodes": len(self._rows),
                "total_frames": self._frames, "total_tasks": len(self._tasks), "chunks_size": layout.FILES_PER_CHUNK,
                "data_files_size_in_mb": layout.DATA_FILE_MB, "video_files_size_in_mb": layout.VIDEO_FILE_MB,
                "fps": self._fps, "splits": {"train": f"0:{len(self._rows)}"}, "data_path": layout.DATA_PATH,
                "video_path": layout.VIDEO_PATH if self.video else None,
                "features": layout.info_features(self._specs, self.video, self._fps)}
        self._path(layout.INFO_PATH).write_text(json.dumps(info, indent=1))

    def _columns(self, episode: Episode) -> dict[str, np.ndarray]:
        """Every feature with numbers or text, one row a step."""
        found = {feature: episode.observations[name][:-1] for name, feature in
                 layout.observation_features(episode.specs).items() if not feature.startswith(layout.IMAGE_PREFIX)}
        found |= {feature: getattr(episode, name) for feature, name in layout.ACTIONS.items()}
        found |= {feature: getattr(episode, name) for feature, (name, _) in layout.SCALARS.items()}
        return found | {"next.done": episode.terminated | episode.truncated, "time_ns": episode.time_ns[:-1],
                        "filter_reason": np.array(episode.filter_reason, str)}

    def _write_pictures(self, episode: Episode, index: int, arrays: dict[str, pa.Array]) -> dict[str, Any]:
        """Pictures into `arrays`, or into a video an episode. Returns what the episode's row says about them."""
        row: dict[str, Any] = {}
        for name, feature in layout.observation_features(episode.specs).items():
            if not feature.startswith(layout.IMAGE_PREFIX):
                continue
            images = episode.observations[name][:-1]
            pixels = images.reshape(-1, 3)[::max(1, images[..., 0].size // 100_000)].astype(np.float32) / 255
            row |= {f"stats/{feature}/{key}": value
                    for key, value in _shaped(feature, _statistics(pixels)).items()}
            self._samples.setdefault(feature, []).append(pixels)
            if not self.video:
                arrays[feature] = pa.array([{"bytes": png(image), "path": None} for image in images], _IMAGE)
                continue
            if images.shape[1] % 2 or images.shape[2] % 2:
                raise DatasetError(f"observation/{name}: a video needs even height and width, got {images.shape[1:3]}")
            chunk, file = divmod(index, layout.FILES_PER_CHUNK)
            path = self._path(layout.VIDEO_PATH, video_key=feature, chunk_index=chunk, file_index=file)
            iio.imwrite(path, images, fps=self._fps, codec="libx264", macro_block_size=2, pixelformat="yuv420p",
                        output_params=["-crf", "18", "-g", "2"])
            place = {"chunk_index": chunk, "file_index": file, "from_timestamp": 0.0,
                     "to_timestamp": len(images) / self._fps}
            row |= {f"videos/{feature}/{key}": value for key, value in place.items()}
        return row

    def _write_table(self, table: pa.Table) -> dict[str, int]:
        chunk, file = divmod(self._file_index, layout.FILES_PER_CHUNK)
        path = self._path(layout.DATA_PATH, chunk_index=chunk, file_index=file)
        if self._writer is None:
            self._writer = pq.ParquetWriter(path, table.schema, compression="snappy", write_page_checksum=True)
        self._writer.write_table(table)
        if path.stat().st_size > layout.DATA_FILE_MB * 1e6:
            self._writer.close()
            self._writer, self._file_index = None, self._file_index + 1
        return {"data/chunk_index": chunk, "data/file_index": file}

    def _own_columns(self, name: str, episode: Episode) -> dict[str, Any]:
        row: dict[str, Any] = {layout.NAME: name, layout.METADATA: json.dumps(episode.metadata),
                               layout.LAST_TIME: int(episode.time_ns[-1]),
                               layout.SHA256: "" if self.video else content_hash(episode)}
        for key, values in episode.observations.items():
            row[layout.LAST + key] = png(values[-1]) if values.ndim == 4 else values[-1].tolist()
        return row

    def _path(self, template: str, **parts: Any) -> Path:
        path = self.root / template.format(**({"chunk_index": 0, "file_index": 0} | parts))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB, losslessly."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values.tolist() if values.dtype.kind == "U" else values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """What LeRobot normalises by, for (N,) or (N, D): a list of D numbers each."""
    table = values.reshape(len(values), -1).astype(np.float64)
    return {"min": table.min(0).tolist(), "max": table.max(0).tolist(), "mean": table.mean(0).tolist(),
            "std": table.std(0).tolist(), "count": [len(table)],
            **{f"q{100 * share:02.0f}": np.quantile(table, share, axis=0).tolist() for share in _QUANTILES}}


def _shaped(feature: str, statistics: dict[str, Any]) -> dict[str, Any]:
    """LeRobot has an image's statistics as (3, 1, 1)."""
    if not feature.startswith(layout.IMAGE_PREFIX):
        return statistics
    return {key: value if key == "count" else [[[number]] for number in value] for key, value in statistics.items()}


def _task_table(tasks: list[str]) -> pa.Table:
    """The tasks as pandas would write a frame whose index they are; LeRobot reads it with pandas."""
    index = "__index_level_0__"
    described = [{"name": name, "field_name": field, "pandas_type": kind, "numpy_type": kind, "metadata": None}
                 for name, field, kind in (("task_index", "task_index", "int64"), (None, index, "unicode"))]
    described[1]["numpy_type"] = "object"
    pandas = {"index_columns": [index], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="snappy", write_page_checksum=True)


def write_lerobot(root: Path, episodes: Iterable[tuple[str, Episode]], video: bool = False) -> Path:
    """A whole dataset from (name, episode) pairs. Raises `DatasetError` when `root` is there, or specs differ."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(f"{root}: exists already and is not empty; name a new folder with --out")
    try:
        with appearing(root) as hidden:
            writer = LeRobotWriter(hidden, video)
            for name, episode in episodes:
                writer.add(name, episode)
            writer.close()
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{root}: cannot be written ({error})") from error
    return root
