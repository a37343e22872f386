"""Shared memory of killed processes is removed, and nobody else's."""

import fcntl
import os
from pathlib import Path

from robot_bringup.segments import remove_dead_segments


def segment(folder: Path, name: str, age: float = 60.0) -> Path:
    for path, size in ((folder / name, 8192), (folder / f"{name}_el", 0), (folder / f"sem.{name}_mutex", 32)):
        path.write_bytes(bytes(size))
        os.utime(path, (path.stat().st_atime - age, path.stat().st_mtime - age))
    return folder / f"{name}_el"


def test_only_what_nobody_holds_is_removed(tmp_path: Path) -> None:
    segment(tmp_path, "fastdds_0123456789abcdef")
    segment(tmp_path, "fastdds_port7411")
    held = segment(tmp_path, "fastdds_fedcba9876543210")
    segment(tmp_path, "fastdds_aaaaaaaaaaaaaaaa", age=0.0)
    segment(tmp_path, "somebody_elses")
    with held.open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert remove_dead_segments(tmp_path) >= 2 * 8192
        left = {path.name for path in tmp_path.iterdir()}
    assert not {name for name in left if "0123456789abcdef" in name or "port7411" in name}
    assert len(left) == 9, "the living one's, the young one's and a stranger's"
    assert remove_dead_segments(tmp_path) > 0, "its owner is gone now"
    assert not (tmp_path / "fastdds_fedcba9876543210").exists()


def test_a_machine_without_shared_memory_has_nothing_to_remove(tmp_path: Path) -> None:
    assert remove_dead_segments(tmp_path / "none") == 0
