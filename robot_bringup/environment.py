"""The environment variables with which every process of the ROS graph runs.

One place for both sources of ROS 2: the pip wheels inside the virtual environment, and a
sourced installation. What the caller has set explicitly (ROS_DOMAIN_ID, a discovery range, a
Fast DDS profile, a renderer) is kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKSPACE = ROOT / "ros2_ws"
INSTALL = WORKSPACE / "install"
FASTDDS_PROFILE = Path(__file__).resolve().parent / "config" / "fastdds.xml"

DEFAULTS = {
    # Nothing of an arm's control traffic leaves this machine unless somebody says so.
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    # With the default profile a 640x480 stream arrives in part or not at all.
    "FASTDDS_DEFAULT_PROFILES_FILE": str(FASTDDS_PROFILE),
    "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
    "MUJOCO_GL": "egl",
    "PYTHONUNBUFFERED": "1",
    # Threads wait awake for a quarter of a millisecond, then sleep: without end, beside a real-time process, a training
    # step took 30 times as long; asleep at once, 2 to 3 times.
    "GOMP_SPINCOUNT": "10000",
    # A fixed threshold keeps glibc from returning and faulting in the same pages at every training step.
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}


def system_ros(base: Mapping[str, str]) -> bool:
    """Whether `base` is the environment of a sourced ROS 2 installation."""
    return bool(base.get("ROS_DISTRO")) and shutil.which("ros2", path=base.get("PATH")) is not None


def site_packages(prefix: Path) -> Path:
    """The folder of Python modules below an install prefix."""
    return prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def wheel_libraries(prefix: Path) -> list[str]:
    """Folders with the shared libraries of the ROS wheels installed under `prefix`."""
    return [str(prefix / "lib"), *map(str, sorted(site_packages(prefix).glob("ros_*.libs")))]


def ros_environment(base: Mapping[str, str]) -> dict[str, str]:
    """`base` completed so that the built workspace and its messages are found.

    Idempotent. Works before the workspace is built; imports of its packages then fail.
    """
    environment = dict(base)
    for name, value in DEFAULTS.items():
        environment.setdefault(name, value)
    prefixes, libraries = [str(INSTALL)], [str(INSTALL / "lib")]
    if not system_ros(base):
        prefixes.append(sys.prefix)
        libraries += wheel_libraries(Path(sys.prefix))
        # The wheels' start-up hook would run every interpreter twice to set this same path.
        environment["_ROS_WHEELS_BOOTSTRAP_COMPLETE"] = "1"
    # colcon's --symlink-install puts Python packages on the path from their build folder, so edits are live.
    modules = [str(WORKSPACE / "build" / "safe_policy_ros"), str(site_packages(INSTALL)), str(ROOT)]
    _prepend(environment, "AMENT_PREFIX_PATH", prefixes)
    _prepend(environment, "LD_LIBRARY_PATH", libraries)
    _prepend(environment, "PYTHONPATH", modules)
    # Launch files name programs without their folder: this interpreter's come first.
    _prepend(environment, "PATH", [str(Path(sys.executable).parent)])
    return environment


def _prepend(environment: dict[str, str], name: str, entries: list[str]) -> None:
    old = [entry for entry in environment.get(name, "").split(":") if entry and entry not in entries]
    environment[name] = ":".join([*entries, *old])
