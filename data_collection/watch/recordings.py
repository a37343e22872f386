"""Recordings as something to watch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mcap.reader import make_reader

from data_collection.conversion.recording_file import RecordingFile
from data_collection.recording.damage import DAMAGE
from data_collection.watch.view import TOPICS, View
from safe_policy_core.errors import DatasetError


def files_of(paths: tuple[Path, ...]) -> list[Path]:
    """Recordings at these paths: files, or everything in folders. Raises `DatasetError` where there is none."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DatasetError(f"{path}: no such recording or folder")
        inside = sorted(path.rglob("*.mcap")) if path.is_dir() else [path]
        if not inside:
            raise DatasetError(f"{path}: no recordings (*.mcap) in this folder")
        found += inside
    return found


class WatchedRecording:
    """One file. Raises `DatasetError` when it is damaged or holds nothing to watch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RecordingFile(path)
        if not self._file.topics & set(TOPICS):
            raise DatasetError(f"{path}: expected some of {', '.join(TOPICS)}, recorded are "
                               f"{', '.join(sorted(self._file.topics))}")
        try:
            with open(path, "rb") as file:
                summary = make_reader(file).get_summary()
        except DAMAGE as error:
            raise DatasetError(f"{path}: truncated or damaged ({error})") from error
        schemas = summary.schemas.values() if summary is not None else ()
        self._definitions = {schema.name: schema.data.decode(errors="replace") for schema in schemas}

    def definition(self, type_name: str) -> str:
        """As the file itself has it, so that recordings of other software versions are read right."""
        return self._definitions[type_name]

    def defines(self, type_name: str) -> bool:
        """Whether the file holds messages of this type."""
        return type_name in self._definitions

    def messages(self) -> Iterator[tuple[int, str, str, bytes]]:
        """(time of receipt [ns], topic, type, CDR data) of what is watched, in the order of time."""
        return self._file.raw(sorted(self._file.topics & set(TOPICS)))

    def show_in(self, view: View) -> int:
        """All of it, at once. Returns how many messages there were."""
        count = 0
        for time_ns, topic, kind, data in self.messages():
            view.show(topic, kind, data, time_ns)
            count += 1
        return count
