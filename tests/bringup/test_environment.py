"""The environment of the graph's processes, and the build of the workspace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from robot_bringup import build_workspace, environment
from robot_bringup.environment import INSTALL, ROOT, ros_environment

SCRIPT = ROOT / "robot_bringup" / "build_workspace.py"


def test_what_the_caller_set_is_kept() -> None:
    base = {"ROS_DOMAIN_ID": "17", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "MUJOCO_GL": "osmesa", "HOME": "/h"}
    made = ros_environment(base)
    assert base.items() <= made.items()


def test_nothing_leaves_the_machine_by_default() -> None:
    assert ros_environment({})["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert "ROS_DOMAIN_ID" not in ros_environment({})


def test_it_is_idempotent() -> None:
    once = ros_environment({"PATH": "/usr/bin", "PYTHONPATH": "/mine", "LD_LIBRARY_PATH": "/lib/mine"})
    assert ros_environment(once) == once
    assert once["PYTHONPATH"].endswith(":/mine") and once["LD_LIBRARY_PATH"].endswith(":/lib/mine")


def test_a_sourced_installation_is_used_instead_of_the_wheels(tmp_path: Path) -> None:
    (tmp_path / "ros2").write_text("#!/bin/sh\n")
    (tmp_path / "ros2").chmod(0o755)
    base = {"ROS_DISTRO": "jazzy", "PATH": str(tmp_path), "AMENT_PREFIX_PATH": "/opt/ros/jazzy"}
    made = ros_environment(base)
    assert made["AMENT_PREFIX_PATH"] == f"{INSTALL}:/opt/ros/jazzy"
    assert "_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in made
    assert not environment.system_ros({"ROS_DISTRO": "jazzy", "PATH": "/nowhere"})


def test_the_dds_profile_has_room_for_images() -> None:
    profile = Path(ros_environment({})["FASTDDS_DEFAULT_PROFILES_FILE"])
    text = {element.tag.rpartition("}")[2]: element.text for element in ElementTree.parse(profile).iter()}
    assert int(text["segment_size"]) == 16 * 1024 * 1024
    assert text["useBuiltinTransports"] == "false"


@pytest.mark.ros
def test_messages_and_nodes_are_found_by_a_fresh_interpreter() -> None:
    code = ("from safe_policy_interfaces.msg import GateStatus; import safe_policy_ros, robot_bringup, rclpy; "
            "print(safe_policy_ros.__file__)")
    bare = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    run = subprocess.run([sys.executable, "-c", code], env=ros_environment(bare), capture_output=True, text=True,
                         timeout=60)
    assert run.returncode == 0, run.stderr
    live = Path(run.stdout.strip()).resolve()
    assert live == ROOT / "ros2_ws/src/safe_policy_ros/safe_policy_ros/__init__.py", "edits of nodes are live"
    for node in ("camera", "franka", "safety_gate", "teleop", "recorder", "policy", "fine_tuner", "scene"):
        assert os.access(INSTALL / "lib" / "safe_policy_ros" / f"{node}_node", os.X_OK)
    for name in ("safe_reach_sim.launch.yaml", "safe_reach_robot.launch.yaml"):
        assert (INSTALL / "share" / "robot_bringup" / "launch" / name).exists(), "ros2 launch finds it"
    assert (INSTALL / "share" / "robot_bringup" / "config" / "safety_gate.yaml").exists()


@pytest.mark.ros
def test_a_second_build_does_nothing() -> None:
    assert build_workspace.STAMP.read_text() == build_workspace.fingerprint(), "the workspace is up to date"
    run = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")


def test_repair_replaces_the_build_machines_paths_once(tmp_path: Path) -> None:
    share = tmp_path / "share" / "pkg" / "cmake"
    share.mkdir(parents=True)
    broken = share / "pkgExport.cmake"
    broken.write_text('set(A "/opt/python/cp311-cp311/include/python3.11;'
                      '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include;/usr/include")\n')
    (share / "other.cmake").write_text("# nothing to repair\n")
    cache = tmp_path / "cache.cmake"
    os.link(broken, cache)  # as installers do
    original = cache.read_text()
    assert build_workspace.repair_cmake_files(tmp_path, "/py/include", "/np/include") == 1
    assert broken.read_text() == 'set(A "/py/include;/np/include;/usr/include")\n'
    assert cache.read_text() == original, "the installer's cache is not touched"
    assert build_workspace.repair_cmake_files(tmp_path, "/py/include", "/np/include") == 0


@pytest.mark.ros
@pytest.mark.skipif(shutil.which("ros2") is None, reason="needs a system installation of ROS 2")
@pytest.mark.parametrize("name", ["safe_reach_sim", "safe_reach_robot"])
def test_ros2_launch_reads_the_same_files(name: str) -> None:
    run = subprocess.run(["ros2", "launch", "robot_bringup", f"{name}.launch.yaml", "--show-args"],
                         env=ros_environment(os.environ), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_links_to_deleted_files_are_removed_before_a_build(tmp_path: Path) -> None:
    """An updated checkout from which a parameter file had gone could not be built."""
    kept, gone = tmp_path / "kept.yaml", tmp_path / "gone.yaml"
    kept.write_text("")
    (tmp_path / "build" / "config").mkdir(parents=True)
    for path in (kept, gone):
        (tmp_path / "build" / "config" / path.name).symlink_to(path)
    assert build_workspace.remove_dangling_links(tmp_path / "build", tmp_path / "absent") == 1
    assert [path.name for path in (tmp_path / "build" / "config").iterdir()] == ["kept.yaml"]
