"""A synchronous client of the running graph, for the command line and the demo."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from geometry_msgs.msg import WrenchStamped
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.context import Context
from rclpy.parameter import Parameter
from safe_policy_interfaces.action import FineTune, RunEpisode
from safe_policy_interfaces.msg import GateStatus, LabelEvent
from safe_policy_interfaces.srv import LoadPolicy, ResetScene
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from safe_policy_core.errors import RobotUnavailableError, UserError
from safe_policy_ros import qos
from safe_policy_ros.graph_link import IMAGE_TOPIC, POSE_TOPIC, STATUS_TOPIC
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.heartbeat import heartbeat_topic
from safe_policy_ros.messages import ns_to_stamp
from safe_policy_ros.spinner import Spinner

T = TypeVar("T")
STATES = {GateStatus.DISARMED: "DISARMED", GateStatus.ACTIVE: "ACTIVE", GateStatus.HOLD: "HOLD",
          GateStatus.FAULT: "FAULT"}
EPISODE_TIMEOUT = 900.0
"""[s] For the whole of an episode: the operator of a real arm may take minutes to arrange the table."""
LEARN_TIMEOUT = 3600.0
STALE_LEARNING = 180.0
"""[s] Without a word from a learner that lives: it hangs. Reading the dataset and the first update come first."""
LOST_AFTER = 5.0
"""[s] Silence after which a node is taken for dead, so that nobody waits an hour for its answer."""
FREE_TIMEOUT = 300.0
"""[s] How long to wait for a node that works for a client that is gone."""
LOOK_PERIOD = 0.03
"""[s] Between two looks at what may end a wait."""
ANSWER_TIMEOUT = 10.0
"""[s] For a node to say that it has taken a request."""
ARM_SETTLES = 0.5
"""[s] After which a gate that is going to fault at once has done so."""


class GraphError(UserError):
    """A node of the graph refused or failed; the message is the node's own."""


class BusyError(GraphError):
    """A node is at work for somebody else, perhaps for a client that died."""


class GraphClient:
    """Talks to the nodes by their services and actions; each call blocks. Use as a context manager.

    domain: the graph's ROS domain; by default that of the variable ROS_DOMAIN_ID.
    """

    def __init__(self, name: str = "safe_policy_client", domain: int | None = None) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node(f"{name}_{os.getpid()}", context=self._context)
        self._status: GateStatus | None = None
        self._node.create_subscription(GateStatus, STATUS_TOPIC, self._on_status, qos.STATUS)
        self._arm = self._node.create_client(Trigger, "/safety_gate/arm")
        self._scene = self._node.create_client(ResetScene, "/scene/reset")
        self._load = self._node.create_client(LoadPolicy, "/policy/load")
        self._tuner_parameters = self._node.create_client(SetParameters, "/fine_tuner/set_parameters")
        self._policy_parameters = self._node.create_client(SetParameters, "/policy/set_parameters")
        self._run = ActionClient(self._node, RunEpisode, "/policy/run_episode")
        self._learn = ActionClient(self._node, FineTune, "/fine_tuner/learn")
        self._heard: dict[str, float] = {}
        for name in ("policy", "fine_tuner"):
            self._node.create_subscription(Header, heartbeat_topic(name),
                                           lambda _, name=name: self._hear(name), qos.COMMAND)
        self._labels = self._node.create_publisher(LabelEvent, "/labels", qos.LABELS)
        self._wrenches = subscribe(self._node, WrenchStamped, "/franka/external_wrench", qos.SENSOR, TakenByHand())
        self._spinner = Spinner(self._node)

    def __enter__(self) -> GraphClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the node and its context. May be called twice."""
        if self._context.ok():
            self._spinner.close()
            self._node.destroy_node()
            rclpy.shutdown(context=self._context)

    def _on_status(self, message: GateStatus) -> None:
        self._status = message

    def _hear(self, name: str) -> None:
        self._heard[name] = time.monotonic()

    def _lost(self, name: str, since: float) -> str:
        """What to say when the node `name` has been silent; `since`: when waiting for it began (monotonic s)."""
        silent = time.monotonic() - max(self._heard.get(name, since), since)
        if silent < LOST_AFTER:
            return ""
        return (f"{name}_node has been silent for {silent:.0f} s: it is lost, or hangs; start it again, then go on "
                "by --resume")

    def wait_ready(self, timeout: float = 30.0, learning: bool = False, recording: bool = True) -> None:
        """Waits for every node that an episode needs. Raises `RobotUnavailableError` naming the missing ones."""
        node = self._node
        needs: dict[str, Callable[[], bool]] = {
            "service /safety_gate/arm (safety_gate_node)": self._arm.service_is_ready,
            f"topic {STATUS_TOPIC} (safety_gate_node)": lambda: self._status is not None,
            f"topic {POSE_TOPIC} (franka_node)": lambda: node.count_publishers(POSE_TOPIC) > 0,
            f"topic {IMAGE_TOPIC} (camera_node)": lambda: node.count_publishers(IMAGE_TOPIC) > 0,
            "service /policy/load (policy_node)": self._load.service_is_ready,
            "action /policy/run_episode (policy_node)": self._run.server_is_ready}
        if recording:
            needs["subscription to /episode/step (recorder_node)"] = lambda: node.count_subscribers("/episode/step") > 0
        _wait_for_all(needs | (self._tuner_needs() if learning else {}), timeout)

    def wait_tuner(self, timeout: float = 30.0) -> None:
        """Waits for the fine-tuner alone."""
        _wait_for_all(self._tuner_needs(), timeout)

    def _tuner_needs(self) -> dict[str, Callable[[], bool]]:
        return {"action /fine_tuner/learn (fine_tuner_node)": self._learn.server_is_ready,
                "service /fine_tuner/set_parameters (fine_tuner_node)": self._tuner_parameters.service_is_ready}

    @property
    def simulated(self) -> bool:
        """Whether the scene is a simulated one, which can be arranged by a service."""
        return self._scene.service_is_ready()

    def arm(self, timeout: float = 20.0) -> None:
        """Arms the safety gate: from now on commands move the arm.

        Tries until `timeout` [s]: a graph that has just started may not know the arm's pose yet, and the
        first moment of tracking may be too slow for it. Raises `GraphError` with the gate's own reason.
        """
        deadline = time.monotonic() + timeout
        while True:
            answer = self._spinner.wait(self._arm.call_async(Trigger.Request()), timeout, "service /safety_gate/arm")
            if answer.success:
                time.sleep(ARM_SETTLES)
                if self.gate()["state"] in ("HOLD", "ACTIVE"):
                    return
            if time.monotonic() > deadline:
                reason = self.gate()["reason"] or answer.message
                raise GraphError(f"/safety_gate/arm: the gate does not stay armed: {reason}")
            time.sleep(0.2)

    def gate(self) -> dict[str, Any]:
        """The gate's state, counters and reason, as it last said them."""
        status = self._status
        if status is None:
            raise RobotUnavailableError(f"topic {STATUS_TOPIC}: no message; is safety_gate_node running?")
        return {"state": STATES[status.state], "reason": status.reason, "epoch": status.epoch,
                "accepted": status.accepted, "rejected": status.rejected, "cost_spent": status.cost_spent,
                "cost_budget": status.cost_budget}

    def cost_budget_spent(self) -> str:
        """That the gate refuses the policy because the labelled costs have used up its budget, or ""."""
        gate = self.gate()
        if gate["cost_spent"] < gate["cost_budget"]:
            return ""
        return (f"the safety gate's cost budget: {gate['cost_spent']:g} of {gate['cost_budget']:g} spent; look at what "
                "happened, call /safety_gate/reset_cost, go on by --resume")

    def label(self, kind: str, value: float, who: str) -> None:
        """Sets a label ("reward", "cost" or "abort") from a key of the console."""
        self._labels.publish(LabelEvent(stamp=ns_to_stamp(self._node.get_clock().now().nanoseconds), kind=kind,
                                        value=value, source="key", who=who))

    def force(self) -> np.ndarray | None:
        """The newest external force at the tool (3,) [N]; None when none came since the last call."""
        newest = None
        for message, _ in take(self._wrenches):
            newest = message.wrench.force
        return None if newest is None else np.array([newest.x, newest.y, newest.z])

    def load(self, directory: Path | str, timeout: float = 60.0) -> str:
        """The policy in `directory` acts from now on; returns the SHA-256 of its weights."""
        request = LoadPolicy.Request(directory=str(Path(directory).resolve()))
        answer = self._spinner.wait(self._load.call_async(request), timeout, "service /policy/load")
        if not answer.success:
            raise (BusyError if "is running" in answer.message else GraphError)(answer.message)
        return answer.sha256

    def configure_tuner(self, parameters: Mapping[str, Any], timeout: float = 10.0) -> None:
        """Sets parameters of fine_tuner_node: checkpoint, data, out, seed, ..."""
        self._set(self._tuner_parameters, parameters, timeout)

    def set_target_cost(self, cost: float | None, timeout: float = 10.0) -> None:
        """The cost that episodes may have from the next one on, for a policy that takes it (QPT, CDT); None: that of
        its training."""
        self._set(self._policy_parameters, {"target_cost": -1.0 if cost is None else float(cost)}, timeout)

    def _set(self, client: Client, parameters: Mapping[str, Any], timeout: float) -> None:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in parameters.items()])
        answer = self._spinner.wait(client.call_async(request), timeout, f"service {client.srv_name}")
        if refused := {result.reason for result in answer.results if not result.successful}:
            reasons = "; ".join(sorted(refused))
            raise (BusyError if "is running" in reasons else GraphError)(f"{client.srv_name}: {reasons}")

    def when_free(self, call: Callable[[], T], timeout: float = FREE_TIMEOUT) -> T:
        """The value of `call`, tried again while a node is at work: a client that died left it an episode to finish."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return call()
            except BusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def run_episode(self, task: str, seed: int, source: str = "policy", directory: Path | str = "",
                    operator: str = "", deterministic: bool = False,
                    on_step: Callable[[dict[str, Any]], None] | None = None,
                    timeout: float = EPISODE_TIMEOUT, stop_when: Callable[[], bool] = lambda: False
                    ) -> dict[str, Any]:
        """One episode; `on_step` hears each step. Raises `GraphError` when it could not run, and
        `RobotUnavailableError` when the policy's process is lost.

        Interrupting the call (Ctrl-C) or its timeout cancels the episode, which stops the arm. So does
        `stop_when`, which is asked all the time; the episode's result then comes as ever.
        """
        goal = RunEpisode.Goal(task=task, seed=seed, source=source, operator_name=operator, deterministic=deterministic,
                               directory=str(Path(directory).resolve()) if str(directory) else "")

        def hear(feedback: Any) -> None:
            if on_step is not None:
                on_step(_plain(feedback.feedback))

        began = time.monotonic()
        status, result = self._act(self._run, goal, hear, timeout, "action /policy/run_episode", stop_when,
                                   lambda: self._lost("policy", began))
        # One that was cancelled before its first step has nothing to tell but why.
        if status == GoalStatus.STATUS_ABORTED or (result.message and not result.steps):
            raise GraphError(result.message)
        return _plain(result)

    def learn(self, episode_path: Path | str, updates: int,
              on_update: Callable[[dict[str, Any]], None] | None = None,
              timeout: float = LEARN_TIMEOUT) -> dict[str, Any]:
        """Adds an episode ("" adds none) and trains `updates` steps. Raises `GraphError` when it failed."""
        path = str(Path(episode_path).resolve()) if str(episode_path) else ""
        began = heard = time.monotonic()

        def lost() -> str:
            if time.monotonic() - heard > STALE_LEARNING:
                return (f"fine_tuner_node lives but has learned nothing for {STALE_LEARNING:g} s: it hangs; start it "
                        "again, then go on by --resume")
            return self._lost("fine_tuner", began)

        def hear(feedback: Any) -> None:
            nonlocal heard
            heard = time.monotonic()
            if on_update is not None:
                on_update({"update": feedback.feedback.update, **json.loads(feedback.feedback.metrics_json or "{}")})

        _, result = self._act(self._learn, FineTune.Goal(episode_path=path, updates=updates), hear, timeout,
                              "action /fine_tuner/learn", lambda: False, lost)
        if not result.success:
            raise GraphError(f"fine-tuning failed: {result.message}")
        return {"checkpoint": result.checkpoint, "metrics": json.loads(result.metrics_json or "{}"),
                "learning_message": result.message}

    def _act(self, client: ActionClient, goal: Any, hear: Callable[[Any], None], timeout: float, what: str,
             stop_when: Callable[[], bool], lost: Callable[[], str]) -> tuple[int, Any]:
        """(final status of the goal, its result). Raises `RobotUnavailableError` with what `lost` says."""
        try:
            sent = self._spinner.call(lambda: client.send_goal_async(goal, hear), ANSWER_TIMEOUT, what)
            handle = self._spinner.wait(sent, ANSWER_TIMEOUT, what)
        except RobotUnavailableError as error:
            raise RobotUnavailableError(lost() or str(error)) from error
        if not handle.accepted:
            raise GraphError(f"{what}: refused, another one is running")
        stopping = False
        deadline = time.monotonic() + timeout
        try:
            asked = self._spinner.call(handle.get_result_async, ANSWER_TIMEOUT, what)
            while not asked.done():
                if problem := lost():
                    raise RobotUnavailableError(problem)
                if time.monotonic() > deadline:
                    raise RobotUnavailableError(f"{what}: no answer within {timeout:g} s; is its node running?")
                if not stopping and stop_when():
                    stopping = True
                    handle.cancel_goal_async()
                time.sleep(LOOK_PERIOD)
            answer = self._spinner.wait(asked, ANSWER_TIMEOUT, what)
        except BaseException:
            handle.cancel_goal_async()
            time.sleep(0.2)  # the request must leave this process before its context goes
            raise
        return answer.status, answer.result


def _wait_for_all(needs: Mapping[str, Callable[[], bool]], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while missing := [name for name, there in needs.items() if not there()]:
        if time.monotonic() > deadline:
            raise RobotUnavailableError(f"the ROS graph lacks {', '.join(missing)} after {timeout:g} s; start it "
                                        "with `python -m robot_bringup safe_reach_sim` (ROS_DOMAIN_ID "
                                        f"{os.environ.get('ROS_DOMAIN_ID', '0')})")
        time.sleep(0.1)


def _plain(message: Any) -> dict[str, Any]:
    """Fields by name, JSON-ready: what nobody estimated is None, not NaN."""
    values = {name: getattr(message, name) for name in message.get_fields_and_field_types()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
