"""Builds the ROS workspace with colcon: `.venv/bin/python robot_bringup/build_workspace.py`.

Idempotent: a stamp of everything the build depends on makes a second call return at once. The
result lies in ros2_ws/{build,install,log}. Python packages are linked, not copied, so an edit
of a node needs no build. With a sourced ROS 2 installation that one is used, otherwise the
wheels in this interpreter's environment, whose exported CMake files are repaired first.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a bare checkout has no installed package yet

from robot_bringup.environment import INSTALL, WORKSPACE, ros_environment, site_packages, system_ros  # noqa: E402

STAMP = INSTALL / ".sources"
NUMPY_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_core/include")
PYTHON_INCLUDE = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")


def repair_cmake_files(prefix: Path, python_include: str, numpy_include: str) -> int:
    """Replaces the paths of the machine that built the wheels. Returns how many files it changed.

    A changed file is written anew and renamed over the old one, because installers may hard-link
    the environment's files to their cache.
    """
    changed = 0
    for path in sorted((prefix / "share").rglob("*.cmake")):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if "/opt/python/" not in text:
            continue
        repaired = PYTHON_INCLUDE.sub(python_include, NUMPY_INCLUDE.sub(numpy_include, text))
        if repaired != text:
            temporary = path.with_suffix(".cmake.new")
            temporary.write_text(repaired, encoding="utf-8", errors="surrogateescape")
            temporary.replace(path)
            changed += 1
    return changed


def _sources() -> list[tuple[Path, bool]]:
    """Files the build depends on; True where the contents matter, False where only the presence does."""
    found = [(path, True) for path in (Path(__file__), ROOT / "robot_bringup" / "environment.py")]
    found += [(path, True) for path in (WORKSPACE / "src" / "safe_policy_interfaces").rglob("*") if path.is_file()]
    for package in (WORKSPACE / "src" / "safe_policy_ros", ROOT / "robot_bringup"):
        found += [(package / name, True) for name in ("package.xml", "setup.py", "setup.cfg")
                  if (package / name).exists()]
        # Linked one by one: they need a new build when they come or go.
        found += [(path, False) for folder in ("launch", "config", "security", "security/common")
                  for path in (package / folder).glob("*.*")]
    return sorted(found)


def fingerprint() -> str:
    """Hash of the sources, the interpreter and the ROS packages that are built against."""
    digest = hashlib.sha256()
    for path, contents in _sources():
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0")
        digest.update(path.read_bytes() if contents else b"")
    wheels = sorted(path.name for path in site_packages(Path(sys.prefix)).glob("ros_*.dist-info"))
    digest.update(repr((sys.version, sys.prefix, str(ROOT), os.environ.get("ROS_DISTRO"), wheels)).encode())
    return digest.hexdigest()


def remove_dangling_links(*folders: Path) -> int:
    """Removes links to files that were deleted since the last build, of which colcon fails; returns how many."""
    dangling = [path for folder in folders for path in folder.rglob("*") if path.is_symlink() and not path.exists()]
    for path in dangling:
        path.unlink()
    return len(dangling)


def _colcon_environment() -> dict[str, str]:
    environment = ros_environment(os.environ)
    if not system_ros(os.environ):
        environment["CMAKE_PREFIX_PATH"] = sys.prefix
        environment["AMENT_PREFIX_PATH"] = sys.prefix
    # The code generators of the messages must not see a half-built workspace.
    environment.pop("PYTHONPATH", None)
    if system_ros(os.environ):
        environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    return environment


def build() -> None:
    """Runs colcon. Raises `subprocess.CalledProcessError` with its exit code when a package fails."""
    if not system_ros(os.environ):
        import numpy

        repair_cmake_files(Path(sys.prefix), sysconfig.get_paths()["include"], numpy.get_include())
    remove_dangling_links(WORKSPACE / "build", INSTALL)
    command = [sys.executable, "-m", "colcon", "--log-base", str(WORKSPACE / "log"), "--log-level", "error",
               "build", "--merge-install", "--symlink-install",
               "--base-paths", str(WORKSPACE / "src"), str(ROOT / "robot_bringup"),
               "--build-base", str(WORKSPACE / "build"), "--install-base", str(INSTALL),
               "--event-handlers", "console_cohesion-", "console_direct-", "desktop_notification-", "status-",
               "--cmake-args", "-G", "Ninja", f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF"]
    environment = _colcon_environment()
    environment["PYTHONWARNINGS"] = "ignore"  # setuptools announces the end of the commands that colcon uses
    run = subprocess.run(command, cwd=ROOT, env=environment, text=True,
                         stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if run.returncode:  # otherwise CMake's advice to the authors of the wheels, which nobody here can follow
        sys.stderr.write(run.stderr)
        run.check_returncode()


def main() -> int:
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    print("ROS workspace: colcon build (a minute the first time)", flush=True)
    start = time.monotonic()
    try:
        build()
    except subprocess.CalledProcessError as error:
        print(f"ROS workspace: colcon failed with exit code {error.returncode}; logs in {WORKSPACE / 'log'}",
              file=sys.stderr)
        return error.returncode
    STAMP.write_text(wanted)
    print(f"ROS workspace: built in {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
