"""`safe-policy convert`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm

from data_collection.conversion import convert_file
from data_collection.recording import recover, unfinished
from safe_policy_core.errors import DatasetError

log = logging.getLogger(__name__)


@dataclass
class Convert:
    """Makes training files (HDF5) from recordings (MCAP). Unfinished recordings in a folder are recovered first."""

    input: tyro.conf.Positional[tuple[Path, ...]]
    """Recordings (*.mcap), or folders of them."""

    out: Path | None = None
    """Folder for the training files; by default each is put beside its recording."""

    image_size: tuple[int, int] | None = None
    """Height and width of the pictures [pixels]; by default what the policy saw when it was recorded."""

    crop: tuple[int, int, int, int] | None = None
    """Window of the raw picture: top, left, height, width [pixels]; by default the largest centred one."""

    def run(self) -> dict[str, Any]:
        """Converts everything that can be converted; then raises `DatasetError` naming what could not be."""
        if self.image_size is not None and min(self.image_size) < 1:
            raise DatasetError(f"image_size: expected a positive height and width, got {self.image_size}")
        failures: dict[str, str] = {}
        recordings = self._recordings(failures)
        episodes, steps = [], 0
        for recording in tqdm(recordings, desc="convert", unit="episode", disable=None):
            target = (self.out or recording.parent) / f"{recording.stem}.h5"
            try:
                path, episode = convert_file(recording, target, self.image_size, self.crop)
            except DatasetError as error:
                failures[str(recording)] = str(error)
                continue
            episodes.append(str(path))
            steps += len(episode)
        if failures:
            raise DatasetError(f"{len(failures)} of {len(episodes) + len(failures)} recordings not converted: "
                               + "; ".join(failures.values()))
        return {"episodes": episodes, "count": len(episodes), "steps": steps}

    def _recordings(self, failures: dict[str, str]) -> list[Path]:
        files: list[Path] = []
        for source in self.input:
            if not source.exists():
                raise DatasetError(f"{source}: no such recording or folder")
            if source.is_file():
                files.append(source)
                continue
            for part in unfinished(source):
                try:
                    result = recover(part)
                except DatasetError as error:
                    failures[str(part)] = str(error)
                else:
                    log.warning("%s: recovered %d messages, %d bytes lost", result.path, result.messages,
                                result.lost_bytes)
            found = sorted(source.glob("*.mcap"))
            if not found and not failures:
                raise DatasetError(f"{source}: no recordings (*.mcap) in this folder")
            files += found
        return files
