"""Weights come near an arm with a passing replay, as their descendants, or with an override that is recorded."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from safe_policy_ros.approval import Approval
from safe_policy_ros.policy_node import PolicyNode

from safe_policy_core import replay_report
from safe_policy_core.checkpoint import read_manifest, save_checkpoint
from safe_policy_core.errors import CheckpointError
from sim.safe_reach.task import SPECS
from tests.ros.graph import ros_domain

pytestmark = pytest.mark.ros

GOOD = {"episodes": 72, "success_rate": 1.0, "violation_rate": 0.0, "cost": 0.0, "success_interval": [0.8, 1.0],
        "violation_interval": [0.0, 0.2]}


def weights(folder: Path, value: float, origin: str = "") -> Path:
    save_checkpoint(folder, {"w": torch.full((3,), value)}, {
        "method": "bc", "config": {}, "specs": SPECS.to_json(), "extra": {"fine_tuning": {"origin": origin}}})
    return folder


def acting(approval: Approval, folder: Path, task: str = "original") -> str:
    approval.loaded(folder, read_manifest(folder))
    return approval.require(task)


def test_without_a_passing_replay_nothing_acts_where_it_is_required(tmp_path: Path) -> None:
    policy = weights(tmp_path / "policy", 1.0)
    with pytest.raises(CheckpointError, match=r"no simulation replay.*safe-policy replay.*require_replay"):
        acting(Approval(True), policy)
    assert acting(Approval(False), policy).startswith("overridden: ")
    replay_report.write(policy, "original", range(20), GOOD | {"violation_rate": 0.3})
    with pytest.raises(CheckpointError, match="violations in 72 episodes"):
        acting(Approval(True), policy)
    replay_report.write(policy, "original", range(20), GOOD)
    assert acting(Approval(True), policy) == "passed"
    with pytest.raises(CheckpointError, match="more_obstacles"):
        acting(Approval(True), policy, "more_obstacles")


def test_what_was_fine_tuned_from_approved_weights_may_act(tmp_path: Path) -> None:
    policy = weights(tmp_path / "policy", 1.0)
    replay_report.write(policy, "original", range(20), GOOD)
    tuned = weights(tmp_path / "tuned", 2.0, read_manifest(policy)["sha256"])
    approval = Approval(True)
    with pytest.raises(CheckpointError):
        acting(approval, tuned)
    acting(approval, policy)
    assert acting(approval, tuned).startswith("fine-tuned from ")
    with pytest.raises(CheckpointError):
        acting(approval, tuned, "more_obstacles")
    with pytest.raises(CheckpointError):
        acting(approval, weights(tmp_path / "stranger", 3.0, "0" * 64))


def test_a_report_of_weights_that_replaced_the_loaded_ones_does_not_count(tmp_path: Path) -> None:
    policy = weights(tmp_path / "policy", 1.0)
    approval = Approval(True)
    approval.loaded(policy, read_manifest(policy))
    replay_report.write(weights(policy, 2.0), "original", range(20), GOOD)
    with pytest.raises(CheckpointError, match="other weights by now"):
        approval.require("original")


def test_a_replay_is_required_unless_somebody_says_otherwise() -> None:
    with ros_domain() as domain:
        rclpy.init(domain_id=domain)
        node = PolicyNode()
        try:
            assert node.get_parameter("require_replay").value is True
        finally:
            node.close()
            node.destroy_node()
            rclpy.shutdown()
