"""Episodes from whatever a path holds: the format is told by content, and each bad file is named while others go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_collection.conversion.bag import STORAGES, BagOptions, bag_episodes, bag_files, is_bag
from data_collection.conversion.dsrl_episodes import dsrl_episodes
from data_collection.conversion.images import Crop
from data_collection.conversion.lerobot_import import is_lerobot, lerobot_episodes
from data_collection.conversion.mcap_episode import mcap_to_episode
from data_collection.conversion.npz import read_npz
from data_collection.conversion.recording_file import RecordingFile
from data_collection.recording import recover, unfinished
from safe_policy_core.data.dsrl import is_dsrl_file
from safe_policy_core.data.episode_file import Episode, read_episode
from safe_policy_core.data.labels import LabelLayers
from safe_policy_core.errors import DatasetError

log = logging.getLogger(__name__)

SUFFIXES = (*STORAGES, ".h5", ".hdf5", ".npz")


@dataclass
class Sources:
    """How to read. image_size, crop: of pictures from recordings, see `fit_image`. bag: for bags of other programs.

    failures: after reading, what could not be read and why.
    """

    image_size: tuple[int, int] | None = None
    crop: Crop | None = None
    bag: BagOptions = field(default_factory=BagOptions)
    failures: dict[str, str] = field(default_factory=dict)
    layers: LabelLayers = field(default_factory=LabelLayers)

    def episodes(self, files: list[Path]) -> Iterator[tuple[Path, str, Episode]]:
        """(file, name, episode) of everything in `files`; as labelled, without what a reviewer rejected."""
        for path in files:
            try:
                for name, episode in self._read(path):
                    yield path, name, episode
            except DatasetError as error:
                self.failures[str(path)] = str(error)

    def find(self, inputs: tuple[Path, ...], suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
        """Files and dataset folders at some paths. Unfinished recordings are recovered first.

        Raises `DatasetError` for a path that is not there or holds nothing to convert.
        """
        found: list[Path] = []
        for source in inputs:
            if not source.exists():
                raise DatasetError(f"{source}: no such recording or folder")
            if source.is_file() or is_bag(source) or is_lerobot(source):
                found.append(source)
                continue
            self._recover(source)
            files = sorted(path for path in source.iterdir() if path.suffix in suffixes and path.is_file()
                           and not path.is_symlink() and not path.name.startswith("."))
            # A recording and the training file made from it are one episode; the recording is the original.
            stems = {path.stem for path in files if path.suffix in STORAGES}
            files = [path for path in files if path.suffix in STORAGES or path.stem not in stems]
            if not files and not self.failures:
                raise DatasetError(f"{source}: no recordings (*.mcap) or episodes in this folder")
            found += files
        return found

    def _recover(self, folder: Path) -> None:
        for part in unfinished(folder):
            try:
                result = recover(part)
            except DatasetError as error:
                self.failures[str(part)] = str(error)
            else:
                log.warning("%s: recovered %d messages, %d bytes lost", result.path, result.messages,
                            result.lost_bytes)

    def _read(self, path: Path) -> Iterator[tuple[str, Episode]]:
        if path.is_dir():
            yield from (lerobot_episodes(path) if is_lerobot(path) else
                        bag_episodes(bag_files(path), self.image_size, self.crop, self.bag))
        elif path.suffix == ".npz":
            yield path.stem, read_npz(path)
        elif path.suffix in (".h5", ".hdf5"):
            yield from dsrl_episodes(path) if is_dsrl_file(path) else self._labelled(path, read_episode(path))
        elif path.suffix == ".db3" or (path.suffix == ".mcap" and not RecordingFile(path).episode):
            yield from bag_episodes([path], self.image_size, self.crop, self.bag)
        else:
            yield path.stem, mcap_to_episode(path, self.image_size, self.crop)

    def _labelled(self, path: Path, episode: Episode) -> Iterator[tuple[str, Episode]]:
        if (labelled := self.layers.labelled(path, episode)) is None:
            log.info("%s: rejected by a reviewer, left out", path)
        else:
            yield path.stem, labelled
