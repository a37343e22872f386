"""Runs episodes: the policy, or the operator with the policy watching, through `RosRobotEnv`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import rclpy.clock
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from safe_policy_interfaces.action import RunEpisode
from safe_policy_interfaces.srv import LoadPolicy

from safe_policy_core.checkpoint import load_checkpoint
from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_core.interfaces import ActionDecision, Aligns, Observation, Policy, Specs
from safe_policy_core.methods.registry import load_policy
from safe_policy_core.scheduling import CONTROL_PRIORITY, ordinary
from safe_policy_core.targets import set_target_cost
from safe_policy_ros import qos
from safe_policy_ros.approval import Approval
from safe_policy_ros.episode_messages import EpisodePlan
from safe_policy_ros.goal_worker import GoalWorker
from safe_policy_ros.heartbeat import Heartbeat
from safe_policy_ros.messages import ns_to_stamp
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare
from safe_policy_ros.policy_view import AsSeen, PolicyView, view_for
from safe_policy_ros.quiet import no_collection
from safe_policy_ros.ros_robot_env import RosRobotEnv
from safe_policy_ros.safe_reach_config import safe_reach_config
from sim.safe_reach.task import check_task

NAME = "policy"
WARM_UP = 3
"""torch picks its kernels in the first calls, which take longer than a control period."""
TARGET_COST = "target_cost"
REPORT_PERIOD = 1.0
"""[s]"""


class PolicyNode(Node):
    """Offers /policy/run_episode and /policy/load; its parameters are those declared below."""

    def __init__(self) -> None:
        super().__init__(NAME)
        checkpoint = declare(self, "checkpoint", "", "folder of the policy's checkpoint, empty for none")
        self._task = declare(self, "task", "original", "task of goals that name none")
        self._device = declare(self, "device", "cpu", "torch device of the policy")
        self._scene = declare(self, "scene", "service", "who arranges the table: service (simulated) or manual")
        self._approval = Approval(declare(self, "require_replay", True, "act only with weights that passed a "
                                          "simulation replay of the task (safe-policy replay --policy), or that were "
                                          "fine-tuned from such here; false for a simulated arm alone"))
        countdown = declare(self, "countdown", 0.0, "warning before the arm begins an episode [s]", 0.0, 60.0)
        patience = declare(self, "patience", 1.0, "factor on how long pictures, poses and the gate's status may fail "
                           "to come before the episode ends; above 1 for a simulated arm alone", 1.0, 3.0)
        self._saved_timeout = declare(self, "saved_timeout", 30.0, "how long to wait for the recorder [s]", 0.0, 600.0)
        declare(self, TARGET_COST, -1.0, "cost that an episode may have, from the next one on, for policies that take "
                "it when they run (QPT, CDT); negative: what they were trained with", -1.0, 1e6, changeable=True)
        check_task(self._task)
        self._policy: Policy | None = None
        self._view: PolicyView = AsSeen()
        self._checkpoint: dict[str, Any] = {}
        # A node of its own, and without the launch file's name for this process: two executors, two threads.
        self._env_node = rclpy.create_node("policy_env", use_global_arguments=False)
        self._env = RosRobotEnv(self._env_node, safe_reach_config(patience, scene=self._scene, countdown=countdown))
        if checkpoint:
            self._load(Path(checkpoint))
        self.create_service(LoadPolicy, "/policy/load", self._on_load)
        self._worker = GoalWorker(self, RunEpisode, "/policy/run_episode", self._run_goal, _failed, self._env.cancel)
        self._fault, self._overruns = "", 0
        self._alignment: dict[str, Any] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self._heartbeat = Heartbeat(self, NAME)
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        self.create_timer(0.25, self._heartbeat.progress, clock=steady)
        self.create_timer(REPORT_PERIOD, self._report, clock=steady)

    # Loading

    def _on_load(self, request: LoadPolicy.Request, response: LoadPolicy.Response) -> LoadPolicy.Response:
        try:
            if self._worker.busy:
                raise ConfigurationError("/policy/load: an episode is running; load between episodes")
            response.sha256 = self._load(Path(request.directory))
            response.success = True
        except UserError as error:
            response.message = str(error)
        return response

    def _load(self, directory: Path) -> str:
        """The policy in `directory` acts from now on; returns its SHA-256. Raises `CheckpointError`."""
        with ordinary():
            _, manifest = load_checkpoint(directory)
            policy = load_policy(directory, self._device)
            view = view_for(policy.specs, self._env.specs, self._scene, str(directory))
            warm_up(policy)
        self._policy, self._view = policy, view
        self._approval.loaded(directory, manifest)
        self._checkpoint = {"checkpoint": str(directory), "checkpoint_sha256": manifest["sha256"],
                            "method": manifest["method"]}
        self.get_logger().info(f"policy {manifest['method']} of {directory}, sha256 {manifest['sha256'][:12]}")
        return manifest["sha256"]

    def _report(self) -> None:
        """What ended the last episode stays in /diagnostics until the next one begins."""
        status = DiagnosticStatus(name="policy: episode", hardware_id=self._checkpoint.get("checkpoint_sha256", ""),
                                  level=DiagnosticStatus.ERROR if self._fault else DiagnosticStatus.OK,
                                  message=self._fault or ("running" if self._worker.busy else "idle"))
        status.values = [KeyValue(key="episode_id", value=self._env.plan.episode_id),
                         KeyValue(key="overruns", value=str(self._overruns)),
                         *(KeyValue(key=f"alignment_{name}", value=str(value))
                           for name, value in self._alignment.items())]
        message = DiagnosticArray(status=[status])
        message.header.stamp = ns_to_stamp(self.get_clock().now().nanoseconds)
        self._diagnostics.publish(message)

    # Episodes

    def _run_goal(self, handle: ServerGoalHandle) -> tuple[str, RunEpisode.Result]:
        self._fault = ""
        try:
            result = self._run(handle)
        except Exception as error:
            self._fault = _failed(error).message
            self._report()
            if not isinstance(error, UserError):
                self._env.graph.stop_gate()  # nobody knows what else is wrong: a person has to look and arm again
                raise
            self.get_logger().error(str(error))
            return "abort", _failed(error)
        return "succeed", result

    def _run(self, handle: ServerGoalHandle) -> RunEpisode.Result:
        goal = handle.request
        task = goal.task or self._task
        check_task(task)
        if goal.source not in ("policy", "teleop"):
            raise ConfigurationError(f"source: expected policy or teleop, got {goal.source!r}")
        policy = self._policy if goal.source == "policy" else OperatorDrives(self._env.specs)
        if policy is None:
            raise ConfigurationError("no policy is loaded: call /policy/load or set the parameter checkpoint")
        self._env.plan = EpisodePlan(
            task, goal.operator_name, goal.directory, goal.source,
            {"record": bool(goal.directory), "deterministic": goal.deterministic, **self._threshold(policy),
             **(self._checkpoint | {"replay": self._approval.require(task)} if goal.source == "policy" else {})})
        with no_collection():
            result = self._episode(policy, handle)
        if goal.directory:
            self._await_receipt(result)
        return result

    def _threshold(self, policy: Policy) -> dict[str, float]:
        """Sets the cost that the next episode may have, as the parameter has it now. Returns it for the record where it
        is not that of training."""
        if policy is not self._policy:
            return {}
        cost = float(self.get_parameter(TARGET_COST).value)
        set_target_cost(policy, None if cost < 0 else cost)
        return {} if cost < 0 else {TARGET_COST: cost}

    def _episode(self, policy: Policy, handle: ServerGoalHandle) -> RunEpisode.Result:
        goal, result = handle.request, RunEpisode.Result()
        view = self._view if policy is self._policy else AsSeen()
        self._alignment = {}
        aligned_to: dict[str, Any] = {}

        def prepare(layout: dict[str, Any]) -> None:
            policy.reset(goal.seed)
            if isinstance(policy, Aligns) and (first := view.expected(layout, goal.seed)) is not None:
                self._align(policy, first, "homing")
                aligned_to.update(layout)

        try:
            observation, info = self._env.reset(goal.seed, prepare)
            if handle.is_cancel_requested:  # a request that came before the reset began
                self._env.cancel()
            view.begin(info["layout"])
            if isinstance(policy, Aligns) and aligned_to != info["layout"]:
                self._align(policy, view.observation(observation), "standing")
            while not (result.terminated or result.truncated):
                decision = policy.act(view.observation(observation), goal.deterministic)
                self._env.note(decision)
                observation, reward, cost, terminated, truncated, info = self._env.step(decision.action)
                policy.observe_executed(info["executed_action"])
                policy.observe_outcome(view.reward(reward), cost)
                result.terminated, result.truncated = terminated, truncated
                result.episode_return += reward
                result.episode_cost += cost
                handle.publish_feedback(_feedback(result.steps, reward, cost, decision))
                result.steps += 1
        finally:
            self._env.halt()
        result.success, result.violation = bool(info["success"]), bool(info["violation"])
        self._overruns = info["overruns"]
        if result.truncated and (fault := info.get("fault")):
            self._fault = fault
            self._report()
            self.get_logger().error(f"the episode was cut short: {fault}")
            result.message = f"the episode was cut short: {fault}"
        return result

    def _align(self, policy: Aligns, observation: Observation, arm: str) -> None:
        """What a policy prepares from the first observation: from the expected one while the arm is homing, else from
        the one that is there, with the arm standing."""
        began = time.monotonic()
        told = policy.align(observation)
        self._alignment = {"ms": round(1e3 * (time.monotonic() - began), 1), "arm": arm, **told}
        self.get_logger().info(f"alignment: {self._alignment}")

    def _await_receipt(self, result: RunEpisode.Result) -> None:
        receipt = self._env.graph.saved(self._env.plan.episode_id, self._saved_timeout)
        problem = ""
        if receipt is None:
            problem = (f"no receipt on /episode/saved within {self._saved_timeout:g} s; is recorder_node running?")
        elif not receipt.success:
            problem = f"recording failed: {receipt.message}"
        result.path = receipt.hdf5_path if receipt else ""
        result.message = "; ".join(filter(None, (result.message, problem)))

    def close(self) -> None:
        """Ends a running episode and stops the arm."""
        self._env.cancel()
        self._worker.close()
        self._heartbeat.close()
        self._env.close()
        self._env_node.destroy_node()


class OperatorDrives(Policy):
    """Asks for no motion: at the gate the operator's commands outrank it."""

    def __init__(self, specs: Specs) -> None:
        self.specs = specs

    def reset(self, seed: int) -> None:
        """Nothing to remember."""

    def act(self, observation: dict[str, np.ndarray], deterministic: bool = False) -> ActionDecision:
        return ActionDecision(np.zeros(self.specs.action.shape, np.float32), chosen_policy="operator")


def warm_up(policy: Policy) -> None:
    """The policy's first calls, on an empty observation, before an arm waits for them."""
    nothing = {name: np.zeros(spec.shape, spec.dtype) for name, spec in policy.specs.observation.items()}
    policy.reset(0)
    for _ in range(WARM_UP):
        policy.observe_executed(policy.act(nothing).action)


def _feedback(step: int, reward: float, cost: float, decision: ActionDecision) -> RunEpisode.Feedback:
    probability = decision.violation_probability
    return RunEpisode.Feedback(step=step, reward=reward, cost=cost, chosen_policy=decision.chosen_policy,
                               violation_probability=math.nan if probability is None else float(probability))


def _failed(error: Exception) -> RunEpisode.Result:
    return RunEpisode.Result(message=(str(error) or type(error).__name__).splitlines()[0])


def main() -> None:
    torch.set_num_threads(1)
    sys.exit(run_node(PolicyNode, NAME, priority=CONTROL_PRIORITY))


if __name__ == "__main__":
    main()
