"""The SROS 2 policy against the launch files: who may move the arm, and who may let it be moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from robot_bringup.launch_file import launch_files
from tests.bringup.sros2_policy import POLICY, PolicyError, Profile, read_policy

PROFILES = {profile.node: profile for profile in read_policy()}


def launched() -> list[tuple[str, str, str]]:
    """(launch file, node's name, its ros_args)."""
    return [(file, entry["node"]["name"], entry["node"].get("ros_args", "")) for file, path in launch_files().items()
            for entry in yaml.safe_load(path.read_text())["launch"] if "node" in entry]


def who_may(permission: str, name: str) -> set[str]:
    return {node for node, profile in PROFILES.items() if profile.may(permission, name)}


@pytest.mark.parametrize(("file", "node", "arguments"), launched())
def test_every_node_of_a_launch_file_has_an_enclave_of_its_own(file: str, node: str, arguments: str) -> None:
    assert arguments == f"--enclave /safe_policy/{node}", file
    assert PROFILES[node].enclave == f"/safe_policy/{node}"


def test_only_the_gate_may_move_the_arm() -> None:
    assert who_may("publish", "/franka/target_pose") == {"safety_gate"}
    assert who_may("reply", "/franka/recover") == {"franka"}


def test_the_gates_inputs_have_one_writer_each() -> None:
    assert who_may("publish", "/franka/current_pose") == who_may("publish", "/franka/external_wrench") == {"franka"}
    assert who_may("publish", "/policy/delta_twist_cmds") == who_may("publish", "/policy/monitor") == {"policy_env"}
    assert who_may("publish", "/episode/heartbeat") == {"policy_env"}
    # The playback of recorded data stands in for an operator and a camera, and runs without them.
    assert who_may("publish", "/teleop/delta_twist_cmds") == {"teleop", "playback"}
    assert who_may("publish", "/camera/frame_status") == {"camera", "playback"}
    assert who_may("publish", "/safety_gate/status") == {"safety_gate"}


def test_only_a_person_may_arm_the_gate_and_clear_the_arms_errors() -> None:
    for service in ("/safety_gate/arm", "/safety_gate/reset_cost", "/franka/recover"):
        assert who_may("request", service) == {"safe_policy_client"}
    assert {"policy_env", "safe_policy_client"} <= who_may("request", "/safety_gate/stop"), "anybody may stop it"


def test_nobody_may_change_the_gates_parameters_or_take_it_down_but_the_supervisor() -> None:
    assert who_may("request", "/safety_gate/set_parameters") == set()
    assert who_may("request", "/safety_gate/change_state") == {"supervisor"}


def test_no_permission_is_a_blank_cheque() -> None:
    for profile in PROFILES.values():
        for _, pattern in profile.allowed:
            assert "*" not in pattern or pattern.startswith("/safe_policy_client_*/"), (profile.node, pattern)


def write(path: Path, body: str) -> Path:
    (path / "policy.xml").write_text(
        '<policy version="0.2.0" xmlns:xi="http://www.w3.org/2001/XInclude"><enclaves><enclave path="/e"><profiles>'
        f'<profile ns="/" node="n">{body}</profile></profiles></enclave></enclaves></policy>')
    return path / "policy.xml"


def test_a_denial_outranks_and_names_are_completed(tmp_path: Path) -> None:
    (profile,) = read_policy(write(tmp_path, '<topics publish="ALLOW"><topic>/a/*</topic><topic>~/own</topic>'
                                             '<topic>here</topic></topics><topics publish="DENY"><topic>/a/b</topic>'
                                             '</topics><actions call="ALLOW"><action>/act</action></actions>'))
    assert isinstance(profile, Profile)
    assert [profile.may("publish", name) for name in ("/a/x", "/a/b", "/n/own", "/here", "/other")] == [
        True, False, True, True, False]
    assert profile.may("request", "/act/_action/send_goal") and profile.may("subscribe", "/act/_action/feedback")
    assert not profile.may("reply", "/act/_action/send_goal")


@pytest.mark.parametrize(("body", "message"), [
    ('<topics publish="MAYBE"><topic>/a</topic></topics>', "MAYBE"), ('<topics write="ALLOW"/>', "unknown rule"),
    ('<xi:include href="missing.xml" xpointer="xpointer(/profile/*)"/>', r"missing\.xml"),
    ('<xi:include href="missing.xml"/>', "xpointer")])
def test_what_cannot_be_read_is_named(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        read_policy(write(tmp_path, body))


def test_the_policy_is_installed_with_what_it_includes() -> None:
    assert {path.name for path in (POLICY.parent / "common").iterdir()} == {"node.xml", "lifecycle_node.xml"}
