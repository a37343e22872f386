"""`episodes.sha256`: which content belongs under which name, so that renamed, swapped and lost files are noticed.

One line a file, `<content hash>  <name relative to the folder>`, sorted by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from data_collection.dataset.check import Checked
from data_collection.dataset.files import inside
from safe_policy_core.errors import DatasetError

MANIFEST = "episodes.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_manifest(folder: Path, checked: Iterable[Checked]) -> Path:
    """Seals a folder, atomically: every whole file with its hash."""
    lines = sorted((item.path.relative_to(folder).as_posix(), item.content) for item in checked if item.content)
    target = folder / MANIFEST
    partial = target.with_name(f".{MANIFEST}.{os.getpid()}.tmp")
    partial.write_text("".join(f"{content}  {name}\n" for name, content in lines))
    os.replace(partial, target)
    return target


def read_manifest(folder: Path) -> dict[Path, str]:
    """Content hash by path; empty without a manifest. Raises `DatasetError` naming a line that is none."""
    path = folder / MANIFEST
    if path.is_symlink():
        raise DatasetError(f"{path}: a link, expected a file of this folder")
    if not path.exists():
        return {}
    found: dict[Path, str] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not text ({error})") from error
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise DatasetError(f"{path}: line {number}: expected a SHA-256, two spaces and a name")
        found[inside(folder, match[2])] = match[1]
    return found


def compare(folder: Path, checked: Iterable[Checked]) -> dict[Path, str]:
    """Problems that only show when files are seen together: copies, other names than recorded, lost files."""
    problems: dict[Path, str] = {}
    first: dict[str, Path] = {}
    listed = read_manifest(folder)
    names = {content: path for path, content in listed.items()}
    # Of copies the one that is listed is the original.
    whole = sorted((item for item in checked if not item.problem and item.content),
                   key=lambda item: (names.get(item.content) != item.path, item.path))
    for item in whole:
        known = names.get(item.content)
        if item.content in first:
            problems[item.path] = f"the same content as {first[item.content].relative_to(folder)}: remove one of them"
        elif listed and known != item.path:
            problems[item.path] = _against_manifest(folder, item.path, known, listed)
        elif item.episode_id and not item.path.name.startswith(item.episode_id):
            problems[item.path] = f"renamed: it was recorded as {item.episode_id}"
        first.setdefault(item.content, item.path)
    seen = {item.path for item in checked}
    return problems | {path: f"lost: {MANIFEST} lists it, and it is not here" for path in listed
                       if path not in seen and listed[path] not in first}


def _against_manifest(folder: Path, path: Path, known: Path | None, listed: dict[Path, str]) -> str:
    if known is not None:
        return f"renamed or swapped: {MANIFEST} has its content under {known.relative_to(folder)}"
    return f"replaced: {MANIFEST} lists other content under this name" if path in listed else \
        f"not in {MANIFEST}: `safe-policy dataset check --seal` takes it in"
