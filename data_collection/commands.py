"""`safe-policy convert`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from data_collection.conversion import dsrl_episodes, lerobot_export, mcap_export, npz
from data_collection.conversion.bag import BagOptions
from data_collection.conversion.sources import SUFFIXES, Sources
from data_collection.conversion.whole import remove_left_behind
from safe_policy_core.data.episode_file import Episode, write_episode
from safe_policy_core.errors import DatasetError, printable

log = logging.getLogger(__name__)

ONE_FILE_EACH = {"hdf5": ".h5", "mcap": ".mcap", "npz": ".npz"}


@dataclass
class Convert:
    """Makes training files (HDF5) from recordings (MCAP), and converts between the formats of other programs.

    Reads this project's recordings and episodes, bags of `ros2 bag` and realsense-ros (MCAP and SQLite), LeRobot
    datasets v3.0, DSRL files and .npz; tells them apart by their content. Unfinished recordings in a folder are
    recovered first.
    """

    input: tyro.conf.Positional[tuple[Path, ...]]
    """Files or folders: recordings, episodes, a bag's folder, a LeRobot dataset."""

    to: Literal["hdf5", "mcap", "lerobot", "dsrl", "npz"] = "hdf5"
    """hdf5: training files, of recordings only when a folder is given. lerobot, dsrl: one dataset of everything."""

    out: Path | None = None
    """Folder for what is made (dsrl: the file); training files are by default put beside their recordings."""

    image_size: tuple[int, int] | None = None
    """Recordings: height and width of the pictures [pixels]; by default what the policy saw, 64 x 64 for other bags."""

    crop: tuple[int, int, int, int] | None = None
    """Recordings: window of the raw picture: top, left, height, width [pixels]; by default the largest centred one."""

    video: bool = False
    """LeRobot: H.264 video, which is smaller and not lossless, in place of PNG pictures."""

    bag: BagOptions = field(default_factory=BagOptions)
    """Bags that other programs recorded."""

    def run(self) -> dict[str, Any]:
        """Converts everything that can be converted; then raises `DatasetError` naming what could not be.

        The result's `not_kept` says what the target format cannot hold.
        """
        if self.image_size is not None and min(self.image_size) < 1:
            raise DatasetError(f"image_size: expected a positive height and width, got {self.image_size}")
        if self.to != "hdf5" and self.out is None:
            raise DatasetError(f"out: expected a place for {self.to}, name it with --out")
        for folder in {path if path.is_dir() else path.parent for path in ([self.out] if self.out else self.input)}:
            remove_left_behind(folder)
        sources = Sources(self.image_size, self.crop, self.bag)
        # Beside their recordings there are training files already; a folder stands for its recordings then.
        files = sources.find(self.input, (".mcap",) if self.out is None else SUFFIXES)
        steps: list[int] = []
        written = self._write(self._counted(sources.episodes(files), len(files), steps), sources.failures)
        if sources.failures:
            told = [printable(" ".join(reason.split())) for reason in sources.failures.values()]
            if len(told) > 1:
                log.warning("%s", "\n".join(told))
                told = list(sources.failures)
            raise DatasetError(f"{len(sources.failures)} of {len(steps) + len(sources.failures)} recordings not "
                               f"converted: {'; '.join(told)}")
        return {"episodes": [str(path) for path in written], "count": len(steps), "steps": sum(steps),
                "not_kept": self._not_kept()}

    def _write(self, episodes: Iterator[tuple[Path, str, Episode]], failures: dict[str, str]) -> list[Path]:
        if self.to in ONE_FILE_EACH:
            written: list[Path] = []
            for source, name, episode in episodes:
                try:
                    written.append(self._write_one(source, name, episode, written))
                except DatasetError as error:
                    failures[f"{source} {name}"] = str(error)
            return written
        assert self.out is not None
        named = ((name, episode) for _, name, episode in episodes)
        try:
            return [lerobot_export.write_lerobot(self.out, named, self.video) if self.to == "lerobot" else
                    dsrl_episodes.write_dsrl_file(self.out, named)]
        except DatasetError as error:
            failures[str(self.out)] = str(error)
            return []

    def _write_one(self, source: Path, name: str, episode: Episode, written: list[Path]) -> Path:
        folder = self.out or (source if source.is_dir() else source.parent)
        target = folder / f"{name}{ONE_FILE_EACH[self.to]}"
        # Names come out of files, too: one with a slash in it could lead anywhere.
        if Path(name).name != name or not name.isprintable() or target in written:
            raise DatasetError(f"{source}: episode name {name!r}: expected the name of a new file")
        if target == source:
            raise DatasetError(f"{source}: would be written over itself; name another folder with --out")
        if self.to == "hdf5":
            write_episode(target, episode)
        else:
            (mcap_export.write_mcap if self.to == "mcap" else npz.write_npz)(target, episode)
        return target

    def _not_kept(self) -> list[str]:
        video = lerobot_export.NOT_KEPT_IN_VIDEO if self.video else ()
        return list({"hdf5": (), "mcap": mcap_export.NOT_KEPT, "npz": npz.NOT_KEPT, "dsrl": dsrl_episodes.NOT_KEPT,
                     "lerobot": (*lerobot_export.NOT_KEPT, *video)}[self.to])

    @staticmethod
    def _counted(episodes: Iterator[tuple[Path, str, Episode]], files: int, steps: list[int]
                 ) -> Iterator[tuple[Path, str, Episode]]:
        done: set[Path] = set()
        with tqdm(total=files, desc="convert", unit="file", disable=None) as bar:
            for path, name, episode in episodes:
                bar.update(path not in done)
                done.add(path)
                steps.append(len(episode))
                yield path, name, episode
