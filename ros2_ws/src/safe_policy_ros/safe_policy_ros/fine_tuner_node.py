"""Learns between episodes and hands out checkpoints. Never while an episode runs: one goal, one caller."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import rclpy.clock
import torch
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.action.server import ServerGoalHandle
from rclpy.node import Node
from rclpy.parameter import Parameter
from safe_policy_interfaces.action import FineTune
from safe_policy_interfaces.msg import EpisodeState

from safe_policy_core.checkpoint import RUN_FOLDER, read_manifest
from safe_policy_core.commands import sequence_sizes
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_core.methods.registry import load_learner
from safe_policy_core.training.online import FineTuner
from safe_policy_core.training.weight_check import VIOLATION_TOLERANCE
from safe_policy_ros import qos
from safe_policy_ros.goal_worker import GoalWorker
from safe_policy_ros.heartbeat import Heartbeat
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare

NAME = "fine_tuner"
NICENESS = 10
"""The loops that hold the arm go first wherever learning and control share a core."""
FEEDBACK_PERIOD = 0.5
"""[s] The caller takes a learner for hung that says nothing."""
SETTABLE: dict[str, tuple[Any, str]] = {
    "checkpoint": ("", "folder of the pretrained checkpoint"), "data": ([], "files or folders of offline episodes"),
    "out": ("runs/finetuned", "folder for checkpoints"), "seed": (0, "of the sampling"),
    "resume": (False, "go on with the learner in `out`"),
    "episodes": ([], "episodes of the session to resume, for the replay buffer"),
    "violation_tolerance": (VIOLATION_TOLERANCE, "by how much the violation probability of new weights may rise")}


class Cancelled(UserError):
    """The caller does not want the rest of the updates."""


class FineTunerNode(Node):
    """Offers /fine_tuner/learn. Setting one of `SETTABLE` starts over from that checkpoint and data."""

    def __init__(self) -> None:
        super().__init__(NAME)
        self._device = declare(self, "device", "cpu", "torch device")
        self._batch = declare(self, "batch", 0, "sequences in a batch; 0 for what suits the method", 0, 1024)
        self._length = declare(self, "length", 0, "rows of a sequence; 0 for what suits the method", 0, 1024)
        self._online_weight = declare(self, "online_weight", 4.0, "how much more often the arm's own episodes are "
                                      "sampled than offline ones", 0.01, 1000.0)
        for name, (default, description) in SETTABLE.items():
            # Dynamic typing: an empty list has no type of its own that a parameter could keep.
            self.declare_parameter(name, default, ParameterDescriptor(description=description, dynamic_typing=True))
        self._tuner: FineTuner | None = None
        self._version = 0
        self._episode_running = False
        self.create_subscription(EpisodeState, "/episode/state", self._on_episode, qos.EPISODE_STATE)
        self._worker = GoalWorker(self, FineTune, "/fine_tuner/learn", self._learn, _failed)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._heartbeat = Heartbeat(self, NAME)
        # Learning has a thread of its own, so this timer tells of the thread that hears goals and episodes.
        self.create_timer(0.25, self._heartbeat.progress,
                          clock=rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME))
        self.get_logger().info("ready")

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        if self._worker.busy:
            return SetParametersResult(successful=False, reason="a goal is running; set parameters between goals")
        if {parameter.name for parameter in parameters} & SETTABLE.keys():
            self._tuner, self._version = None, 0
        return SetParametersResult(successful=True)

    def _on_episode(self, state: EpisodeState) -> None:
        self._episode_running = state.phase in (EpisodeState.RESETTING, EpisodeState.RUNNING)

    def _start(self) -> FineTuner:
        """From the parameters' checkpoint and data. Raises `UserError` naming what is wrong with them."""
        checkpoint = self.get_parameter("checkpoint").value
        data = self.get_parameter("data").value
        if not checkpoint or not data:
            raise ConfigurationError("fine_tuner: set the parameters checkpoint (a pretrained one) and data (offline "
                                     f"episodes); they are {checkpoint!r} and {data!r}")
        out, resume = Path(self.get_parameter("out").value), bool(self.get_parameter("resume").value)
        resume = resume and (out / RUN_FOLDER).exists()  # before the first round there is only the beginning
        learner = load_learner(out if resume else Path(checkpoint), self._device)
        origin = read_manifest(checkpoint)
        batch, length = sequence_sizes(origin["method"], self._batch, self._length)
        self._version = max((int(path.name) for path in (out / "versions").glob("[0-9]*")), default=0)
        return FineTuner(learner, EpisodeStore(data), out, batch=batch, length=length,
                         seed=int(self.get_parameter("seed").value), online_weight=self._online_weight,
                         command="fine_tuner_node", resume=resume, origin=origin["sha256"],
                         episodes=[Path(path) for path in self.get_parameter("episodes").value if path],
                         violation_tolerance=float(self.get_parameter("violation_tolerance").value))

    def _learn(self, handle: ServerGoalHandle) -> tuple[str, FineTune.Result]:
        goal: FineTune.Goal = handle.request
        try:
            result = self._updates(goal, handle)
        except UserError as error:
            self.get_logger().error(str(error))
            return "abort", _failed(error)
        return "succeed", result

    def _updates(self, goal: FineTune.Goal, handle: ServerGoalHandle) -> FineTune.Result:
        if self._episode_running:
            raise ConfigurationError("an episode is running; learning waits until it has ended")
        tuner = self._tuner = self._tuner or self._start()
        if goal.episode_path:
            tuner.add_episode(Path(goal.episode_path))

        told = 0.0

        def tell(update: int, metrics: dict[str, float]) -> None:
            nonlocal told
            if handle.is_cancel_requested:
                raise Cancelled(f"cancelled after {update} of {goal.updates} updates")
            if (now := time.monotonic()) - told > FEEDBACK_PERIOD or update == goal.updates:
                told = now
                handle.publish_feedback(FineTune.Feedback(update=update, metrics_json=json.dumps(metrics)))

        metrics = tuner.learn(goal.updates, tell)
        self._version += 1
        # A copy under a number: the policy may load it while the next one is being written.
        version = tuner.directory / "versions" / f"{self._version:04d}"
        shutil.copytree(tuner.checkpoint, version, dirs_exist_ok=True)
        return FineTune.Result(success=True, checkpoint=str(version.resolve()), metrics_json=json.dumps(metrics),
                               message=tuner.last_failure)

    def close(self) -> None:
        self._heartbeat.close()
        self._worker.close()


def _failed(error: Exception) -> FineTune.Result:
    return FineTune.Result(success=False, message=(str(error) or type(error).__name__).splitlines()[0])


def main() -> None:
    # Absolute: started by a process that comes first, a relative step would only bring it to everybody's level.
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    torch.set_num_threads(1)
    sys.exit(run_node(FineTunerNode, NAME))


if __name__ == "__main__":
    main()
