"""Which files a dataset folder holds. Nothing outside the folder is ever opened."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from safe_policy_core.errors import DatasetError, printable

EPISODE_SUFFIXES = (".h5", ".hdf5")
RECORDING_SUFFIXES = (".mcap", ".mcap.part")


def dataset_files(folder: Path | str, suffixes: tuple[str, ...] = EPISODE_SUFFIXES) -> list[Path]:
    """Files of some kinds in a folder and the folders in it, sorted. Linked folders are not entered.

    Names with a leading dot are what a killed writer left behind. Raises `DatasetError` for no folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    return sorted(Path(directory) / name for directory, _, names in os.walk(root) for name in names
                  if name.endswith(suffixes) and not name.startswith("."))


def refusal(path: Path) -> str:
    """Why a file may not be opened: a link leads out of the folder, a pipe never ends; "" when it may."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "a link, expected a file of this folder"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    return ""


def inside(folder: Path, name: str) -> Path:
    """`folder`/`name` for a name read from a file. Raises `DatasetError` when it leads out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or not name.isprintable():
        raise DatasetError(f"{printable(name)}: expected the name of a file in {folder}")
    path = folder.joinpath(*parts)
    if not Path(os.path.realpath(path)).is_relative_to(folder.resolve()):  # `resolve` raises for a link to itself
        raise DatasetError(f"{printable(name)}: leads out of {folder}")
    return path
