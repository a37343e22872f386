"""New datasets from old ones: whole files with their recordings and label histories, sealed with a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from data_collection.dataset.check import check_file
from data_collection.dataset.files import EPISODE_SUFFIXES, dataset_files, refusal
from data_collection.dataset.manifest import write_manifest
from data_collection.dataset.summary import Row
from safe_policy_core.data.labels import LabelLayer, LabelLayers
from safe_policy_core.errors import DatasetError


def new_folder(folder: Path) -> Path:
    """`folder`, made. Raises `DatasetError` unless it is new or empty: nothing is overwritten or mixed by accident."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder}: exists already and is not empty; name a new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copy_rows(rows: Sequence[Row], out: Path) -> tuple[list[Row], dict[Path, str]]:
    """Copies every whole, new episode of `rows` to `out`, with the recording beside it and its labels.

    Returns the rows that were copied, and why other files were left out: damage, or the content of one that is there.
    """
    new_folder(out)
    layers, target, copied, left_out = LabelLayers(), LabelLayer(out), [], {}
    seen: dict[str, Path] = {}
    for row in rows:
        checked = check_file(row.path)
        if checked.problem or checked.content in seen:
            left_out[row.path] = checked.problem or f"the same content as {seen[checked.content]}"
            continue
        seen[checked.content] = row.path
        copy = out / row.path.name
        if copy.exists():
            copy = out / f"{row.path.stem}-{checked.content[:8]}{row.path.suffix}"
        shutil.copyfile(row.path, copy)
        recording = row.path.with_suffix(".mcap")
        if recording.exists() and not refusal(recording):
            shutil.copyfile(recording, copy.with_suffix(".mcap"))
        copy_labels(layers.beside(row.path), target, row.recording)
        copied.append(row)
    # What was written is read again: a full disk or a bad one shows here, not in training.
    seal(out)
    return copied, left_out


def copy_labels(source: LabelLayer, target: LabelLayer, recording: str) -> None:
    """The whole history of an episode's labels, once."""
    known = {(label.id, label.when, label.kind) for label in target.history(recording)}
    target.add(label for label in source.history(recording) if (label.id, label.when, label.kind) not in known)


def seal(folder: Path) -> None:
    """Checks the episodes of a new folder and writes their manifest. Raises `DatasetError` for a bad one."""
    checked = [check_file(path) for path in dataset_files(folder, (*EPISODE_SUFFIXES, ".mcap"))]
    for item in checked:
        if item.problem:
            raise DatasetError(f"{item.path}: {item.problem}")
    write_manifest(folder, checked)
