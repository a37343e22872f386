"""The ROS graph as a `RobotEnv`: a real arm, or the simulated one behind the same protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rclpy.node import Node
from safe_policy_interfaces.msg import EpisodeState, GateStatus
from sensor_msgs.msg import Image

from data_collection.conversion.images import fit_image
from safe_policy_core.errors import RobotUnavailableError
from safe_policy_core.geometry import Pose
from safe_policy_core.interfaces import ActionDecision, Observation, RobotEnv, Specs, StepResult
from safe_policy_core.safety.motion import CONTROL_PERIOD
from safe_policy_core.scheduling import ordinary
from safe_policy_ros.episode_messages import EpisodePlan, episode_state, monitor_message, step_message
from safe_policy_ros.executed import action_scale
from safe_policy_ros.gate_limits import GateLimits
from safe_policy_ros.graph_link import IMAGE_TOPIC, POLL_PERIOD, POSE_TOPIC, STATUS_TOPIC, GraphLink
from safe_policy_ros.heartbeat import LOST_AFTER
from safe_policy_ros.homing import Homing
from safe_policy_ros.messages import image_from_msg, stamp_to_ns
from safe_policy_ros.pacer import Pacer
from safe_policy_ros.preparation import Preparation
from safe_policy_ros.scene_setup import make_scene
from safe_policy_ros.spinner import Spinner

Meanwhile = Callable[[dict[str, Any]], None]
LAST_IMAGE_WAIT = 1.0
"""[s] How long a last step waits for the picture of its outcome."""
LONGEST_SLACK = 0.017
"""[s] How far from the end of the control period a picture may come to end it: half the interval of 30 Hz."""


@dataclass(frozen=True)
class RosEnvConfig:
    """specs, start_pose (seed -> pose of the tool) and nominal_quaternion (4,) come from the task.

    scene: "service" (simulated) or "manual" (the operator arranges the table). Times in s:
    connect_timeout for a node's first message, image_timeout and pose_timeout for the age at which
    what was seen is too old to act on, status_timeout for the gate's silence, companion_timeout for that
    of operator, recorder and learner, fresh_timeout for the first image of an episode, operator_timeout
    for the table, countdown before the arm begins.
    """

    specs: Specs
    start_pose: Callable[[int], Pose]
    nominal_quaternion: tuple[float, ...]
    max_steps: int = 80
    scene: str = "service"
    connect_timeout: float = 15.0
    image_timeout: float = 0.2
    pose_timeout: float = 0.1
    status_timeout: float = 0.2
    companion_timeout: float = LOST_AFTER
    fresh_timeout: float = 5.0
    operator_timeout: float = 600.0
    countdown: float = 0.0
    homing: Homing = field(default_factory=Homing)


class RosRobotEnv(RobotEnv):
    """Ten steps a second through the safety gate, each returning as its last picture comes.

    Steps are in real time: between the return of one step and the call of the next the last command
    goes on acting, and the gate stops the arm when the next one is more than 150 ms late. Never arms
    the gate. A fault ends the episode with `truncated` and `info["fault"]`: what the gate reports, or
    stale_image, stale_pose, stale_gate, rearmed, abort, cancelled, or lost_NAME when a process that
    was there at the reset has fallen silent (then the gate is stopped, too).
    """

    def __init__(self, node: Node, config: RosEnvConfig) -> None:
        self.specs, self._config, self._node = config.specs, config, node
        self._scale = action_scale(config.specs)
        self._nominal = np.asarray(config.nominal_quaternion, float)
        self._graph = GraphLink(node, self._nominal, config.companion_timeout)
        self._spinner = Spinner(node)
        self._scene = make_scene(config.scene, node, self._spinner, config.connect_timeout, config.operator_timeout)
        self._limits = GateLimits(node, self._spinner, config.connect_timeout)
        self._pacer = Pacer(CONTROL_PERIOD)
        self._cancelled = threading.Event()
        self._preparation = Preparation(node, self._graph, config.homing, self._cancelled, config.connect_timeout,
                                        config.status_timeout)
        self._decision: ActionDecision | None = None
        self._running = False
        self.plan = EpisodePlan(task="original")

    @property
    def graph(self) -> GraphLink:
        return self._graph

    # The episode

    def reset(self, seed: int, meanwhile: Meanwhile | None = None) -> tuple[Observation, dict[str, Any]]:
        """Clears the scene, homes the arm, arranges the scene, counts down, waits for a fresh image.

        meanwhile: called with the layout that is to come ({} where nobody knows it), in a thread of its own while the
        arm moves to its start; what it raises is raised here, when the arm is at rest. Raises `RobotUnavailableError`
        naming the topic or service that does not answer, or the gate's state when it is not armed.
        """
        self.halt()
        self._cancelled.clear()
        self._start = self._config.start_pose(seed).to_vector(self._nominal)
        self.plan = self.plan.begin(seed)
        self._announce(EpisodeState.RESETTING)
        try:
            preparation = self._preparation
            preparation.await_graph()
            self._graph.forget()
            self._graph.presence.begin(time.monotonic())
            limits = self._limits.read()
            self._home(self._scene.clear(self.plan.task, seed), meanwhile)
            layout = self._scene.place(self.plan.task, seed)
            preparation.count_down(self._config.countdown,
                                   lambda left: self._announce(EpisodeState.RESETTING, {"countdown": left}))
            self._first_observation(self._graph.now_ns())
        except Exception:
            self._graph.send_twist(np.zeros(6))
            self._announce(EpisodeState.ENDED)
            raise
        self._steps, self._violation, self._epoch = 0, False, preparation.status().epoch
        self._graph.forget()
        self._pacer.start()
        self._running = True
        self._announce(EpisodeState.RUNNING, self._metadata(layout, limits))
        return self._observation(), {"layout": layout, "success": False, "violation": False,
                                     "episode_id": self.plan.episode_id, "time_ns": self._image_ns}

    def _home(self, layout: dict[str, Any], meanwhile: Meanwhile | None) -> None:
        if meanwhile is None:
            self._preparation.home(self._start)
            return
        with ThreadPoolExecutor(1, "meanwhile") as pool:
            done = pool.submit(_waiting_its_turn, meanwhile, layout)
            self._preparation.home(self._start)
        done.result()

    def note(self, decision: ActionDecision) -> None:
        """What the policy thought of the next step's action, for the record."""
        self._decision = decision

    def step(self, action: np.ndarray) -> StepResult:
        """See `RobotEnv.step`. Returns at the end of the control period."""
        if not self._running:
            raise RuntimeError("RosRobotEnv.step: call reset first, or again after the end of an episode")
        action = self.specs.action.validate(action)
        decision, self._decision = self._decision or ActionDecision(action), None
        before = self._image_ns, self._pose
        sent_ns = self._graph.send_twist(action * self._scale / CONTROL_PERIOD, monitor_message(decision))
        deadline = self._pacer.next()
        fault = self._await_picture(deadline) or self._observe()
        signals = self._graph.take_signals()

        executed = self._graph.executed_action(sent_ns, self._scale)
        human = np.mean(signals.human, 0) * CONTROL_PERIOD / self._scale if signals.human else np.zeros(6)
        self._steps += 1
        self._violation |= signals.cost > 0
        terminated = signals.reward > 0
        truncated = not terminated and (bool(fault) or self._steps >= self._config.max_steps)
        reasons = sorted(signals.limits) + (["teleop"] if signals.teleop else []) + ([fault] if fault else [])
        info: dict[str, Any] = {
            "executed_action": executed, "human_action": np.clip(human, -1, 1).astype(np.float32),
            "intervention": signals.teleop, "filter_reason": ",".join(reasons), "success": terminated,
            "violation": self._violation, "overruns": self._pacer.overruns}
        if fault:
            info["fault"] = fault
        if (terminated or truncated) and self._image_ns == before[0]:
            self._await_last_image()
        if self._image_ns > before[0]:
            # A step whose outcome no camera saw is no training data; the recording ends before it.
            self._graph.publish_step(step_message(
                self._steps - 1, before, (self._image_ns, self._pose), action, decision, info,
                float(signals.reward), float(signals.cost), terminated, truncated))
        info["time_ns"] = self._image_ns
        if terminated or truncated:
            self._end()
        return self._observation(), float(signals.reward), float(signals.cost), terminated, truncated, info

    def cancel(self) -> None:
        """Stops the arm now and ends the running episode, from any thread."""
        self._cancelled.set()
        self._graph.send_twist(np.zeros(6))

    def halt(self) -> None:
        """Ends a running episode, if there is one: explicit zero twist, ENDED announced."""
        if self._running:
            self._end()

    def close(self) -> None:
        self.halt()
        self._spinner.close()

    def _end(self) -> None:
        self._running = False
        self._graph.send_twist(np.zeros(6))
        self._announce(EpisodeState.ENDED)

    def _announce(self, phase: int, metadata: dict[str, Any] | None = None) -> None:
        self._graph.publish_state(episode_state(self.plan, phase, self._graph.now_ns(), metadata or {}))

    def _metadata(self, layout: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
        return self.plan.metadata | {
            "task": self.plan.task, "seed": self.plan.seed, "operator": self.plan.operator_name,
            "source": self.plan.source, "specs": self.specs.to_json(), "limits": limits,
            "layout": layout, "start_pose": self._start.tolist(), "control_period": CONTROL_PERIOD,
            "nominal_quaternion": list(self._config.nominal_quaternion), "max_steps": self._config.max_steps}

    # What is seen

    def _observation(self) -> Observation:
        return self.specs.validate_observation({"image": self._image, "pose": self._pose})

    def _await_picture(self, deadline: float) -> str:
        """Waits for the picture that is nearest to the end of the control period, so that it is acted on while it is
        new. Returns what ended the wait before its time, or "". An interruption stops the arm at once."""
        slack = min(LONGEST_SLACK, self._graph.frame_interval() / 2)
        while True:
            self._graph.poll()
            self._graph.pulse()
            now = time.monotonic()
            if interruption := self._interruption(now):
                self._graph.send_twist(np.zeros(6))
                return interruption
            if now >= deadline - slack:
                arrival = self._graph.image_arrival(self._image_ns)
                if arrival is not None and arrival >= deadline - slack:
                    self._pacer.follow(arrival)
                    return ""
                if now >= deadline + slack:
                    return ""
            self._graph.wait(min(POLL_PERIOD, max(deadline + slack - now, 0.0)))

    def _interruption(self, now: float) -> str:
        if self._cancelled.is_set():
            return "cancelled"
        if self._graph.aborted:
            return "abort"
        if lost := self._graph.presence.lost(now):
            self._graph.stop_gate()
            return f"lost_{lost}"
        return self._gate_fault()

    def _observe(self) -> str:
        """Takes the newest image and pose; returns the fault that ends the episode, or ""."""
        fault, image = "", self._graph.newer_image(self._image_ns, 0.0)
        if image is None:
            # Blind, so the arm may not go on; the gate takes an explicit zero for a halt, silence for a fault.
            self._graph.send_twist(np.zeros(6))
            seen = self._graph.latest(IMAGE_TOPIC)
            left = self._config.image_timeout - (seen[1] if seen else self._config.image_timeout)
            image = self._graph.newer_image(self._image_ns, time.monotonic() + left)
            fault = self._gate_fault() or ("" if image else "stale_image")
        if image is not None:
            age = (self._graph.now_ns() - stamp_to_ns(image.header.stamp)) * 1e-9
            if age > self._config.image_timeout:
                fault = fault or "stale_image"
            self._take_image(image)
        pose = self._graph.pose_vector()
        if pose is None or pose[1] > self._config.pose_timeout:
            return fault or "stale_pose"
        self._pose = pose[0].astype(np.float32)
        return fault

    def _await_last_image(self) -> None:
        """A step that ends the episode unseen, with the arm at rest: nothing is lost by waiting for a late picture."""
        self._graph.send_twist(np.zeros(6))
        image = self._graph.newer_image(self._image_ns, time.monotonic() + LAST_IMAGE_WAIT)
        pose = self._graph.pose_vector()
        if image is not None and pose is not None and pose[1] <= self._config.pose_timeout:
            self._take_image(image)
            self._pose = pose[0].astype(np.float32)

    def _take_image(self, message: Image) -> None:
        """The policy's picture is made by the function that makes the training file's."""
        size = self.specs.observation["image"].shape[:2]
        self._image = fit_image(image_from_msg(message), (size[0], size[1]))
        self._image_ns = stamp_to_ns(message.header.stamp)

    def _first_observation(self, after_ns: int) -> None:
        image = self._graph.newer_image(after_ns, time.monotonic() + self._config.fresh_timeout)
        if image is None:
            raise RobotUnavailableError(f"topic {IMAGE_TOPIC}: no image captured after the reset within "
                                        f"{self._config.fresh_timeout:g} s; is the camera running?")
        self._take_image(image)
        pose = self._graph.pose_vector()  # newer_image has polled
        if pose is None or pose[1] > self._config.pose_timeout:
            raise RobotUnavailableError(f"topic {POSE_TOPIC}: no fresh pose of the arm; is franka_node running?")
        self._pose = pose[0].astype(np.float32)

    def _gate_fault(self) -> str:
        entry = self._graph.latest(STATUS_TOPIC)
        if entry is None or entry[1] > self._config.status_timeout:
            return "stale_gate"
        status: GateStatus = entry[0]
        if status.state == GateStatus.FAULT:
            return status.reason or "gate_fault"
        if status.state == GateStatus.DISARMED:
            return "disarmed"
        return "" if status.epoch == self._epoch else "rearmed"


def _waiting_its_turn(work: Meanwhile, layout: dict[str, Any]) -> None:
    """Long work beside the thread that commands the arm, which comes first."""
    with ordinary():
        work(layout)
