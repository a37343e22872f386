"""`RosRobotEnv` on the whole simulated graph: libfranka's protocol, the gate, the rendered camera."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from safe_policy_core.interfaces import RobotEnv
from safe_policy_core.scheduling import CONTROL_PRIORITY, come_first, step_back
from sim.safe_reach import task
from tests.contract import RobotEnvContract
from tests.ros.graph import ros_domain, wait_for
from tests.ros.safe_reach_graph import READY_TIMEOUT, SIMULATED_PATIENCE, SafeReachGraph, safe_reach_graph

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeReachGraph]:
    with safe_reach_graph(tmp_path_factory.mktemp("logs")) as running:
        running.start_world(learned_layer="absent")  # actions of a test: nobody estimates anything about them
        yield running


class Rig:
    """An environment in this process, and the operator's hand on the arm service."""

    def __init__(self, domain: int, name: str) -> None:
        import rclpy
        from safe_policy_interfaces.msg import EpisodeState
        from safe_policy_ros import qos
        from safe_policy_ros.client import GraphClient
        from safe_policy_ros.ros_robot_env import RosRobotEnv
        from safe_policy_ros.safe_reach_config import safe_reach_config

        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node(name, context=self._context)
        self.phases: list[tuple[int, dict]] = []
        self._node.create_subscription(EpisodeState, "/episode/state", lambda m: self.phases.append((m.phase, m)),
                                       qos.EPISODE_STATE)
        self.env = RosRobotEnv(self._node, safe_reach_config(SIMULATED_PATIENCE, connect_timeout=10.0))
        self.client = GraphClient(name=f"{name}_operator", domain=domain)

    def arm(self, timeout: float = 15.0) -> None:
        """Arms when necessary; retries while the gate still refuses because the arm's state is not there yet [s]."""
        from safe_policy_ros.client import GraphError

        def armed() -> bool:
            try:
                if self.client.gate()["state"] in ("HOLD", "ACTIVE"):
                    return True
                self.client.arm()
            except (GraphError, RobotUnavailableError):
                return False
            return True

        wait_for(armed, timeout, "arming")

    def reset_when_up(self, seed: int) -> None:
        """The first reset after processes were started. Raises what still kept it from working at the end."""
        deadline = time.monotonic() + READY_TIMEOUT
        while True:
            try:
                self.arm()
                self.env.reset(seed)
                return
            except RobotUnavailableError:
                if time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        import rclpy

        self.env.close()
        self.client.close()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture(scope="module")
def rig(graph: SafeReachGraph) -> Iterator[Rig]:
    come_first(CONTROL_PRIORITY)  # as policy_node does; threads of ROS inherit it
    made = Rig(graph.graph.domain, "env_test")
    try:
        made.arm(READY_TIMEOUT)
        made.reset_when_up(0)
        yield made
    finally:
        made.close()
        step_back()


@pytest.fixture
def armed(rig: Rig) -> Iterator[Rig]:
    rig.arm()
    yield rig
    rig.env.halt()


class TestContract(RobotEnvContract):
    DETERMINISTIC = False

    @pytest.fixture
    def env(self, armed: Rig) -> RobotEnv:
        return armed.env

    @pytest.fixture
    def env_to_close(self) -> Iterator[RobotEnv]:
        """In a domain of its own: a second sender of commands is a fault to the gate."""
        with ros_domain() as domain:
            rig = Rig(domain, "env_to_close")
            yield rig.env
            rig.close()


def drive(rig: Rig, action: np.ndarray, steps: int) -> list[tuple]:
    """Steps of one action; fails, and says why, when the episode ends meanwhile."""
    results = []
    for _ in range(steps):
        results.append(rig.env.step(action))
        *_, terminated, truncated, info = results[-1]
        assert not (terminated or truncated), info
    return results


def test_steps_are_ten_a_second_and_the_arm_does_what_was_executed(armed: Rig) -> None:
    observation, info = armed.env.reset(3)
    assert info["layout"]["target"] is not None
    start = task.start_pose(3).position
    np.testing.assert_allclose(observation["pose"][:3], start, atol=0.012)
    ends, executed = [], np.zeros(6)
    action = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.5], np.float32)
    before = observation["pose"].copy()
    for _ in range(10):
        *_, info = drive(armed, action, 1)[0]
        ends.append(time.monotonic())
        executed += info["executed_action"]
        assert info["time_ns"] > 0
    observation = drive(armed, np.zeros(6, np.float32), 4)[-1][0]
    assert np.median(np.diff(ends)) == pytest.approx(0.1, abs=0.005)
    np.testing.assert_allclose(executed[:5], 0.0, atol=0.3)
    assert executed[5] == pytest.approx(5.0, rel=0.1)
    turned = (observation["pose"] - before)[5]
    assert turned == pytest.approx(executed[5] * task.MAX_ROTATION_STEP, abs=0.04)


def test_the_episode_is_announced_with_what_a_reader_needs(armed: Rig) -> None:
    import json

    from safe_policy_interfaces.msg import EpisodeState

    armed.phases.clear()
    armed.env.reset(4)
    armed.env.step(np.zeros(6, np.float32))
    armed.env.halt()
    wait_for(lambda: armed.phases and armed.phases[-1][0] == EpisodeState.ENDED, 2.0, "ENDED")
    running = [m for phase, m in armed.phases if phase == EpisodeState.RUNNING]
    assert len(running) == 1
    metadata = json.loads(running[0].metadata_json)
    assert metadata["specs"] == task.SPECS.to_json()
    assert metadata["limits"]["workspace_low"] == list(task.MOTION_LIMITS.workspace_low)
    assert len(metadata["layout"]["obstacles"]) == 2
    assert metadata["seed"] == 4


def test_what_is_to_be_done_meanwhile_is_done_while_the_arm_moves(armed: Rig) -> None:
    armed.env.reset(5)
    drive(armed, np.array([1, 0, 0, 0, 0, 0], np.float32), 6)  # away from the start
    told: list[dict] = []

    def place() -> np.ndarray:
        return armed.env.graph.pose_vector()[0][:3]

    def look(layout: dict) -> None:
        told.append(layout)
        before = place()
        wait_for(lambda: np.linalg.norm(place() - before) > 0.005, 5.0, "the arm on its way")

    _, info = armed.env.reset(5, look)
    assert told == [info["layout"]], "the layout that is to come is known before"

    def fail(layout: dict) -> None:
        raise ConfigurationError("meanwhile: of a test")

    with pytest.raises(ConfigurationError, match="meanwhile: of a test"):
        armed.env.reset(5, fail)
    wait_for(lambda: armed.client.gate()["state"] == "HOLD", 2.0, "the arm at rest, without a fault")
    armed.env.reset(5)


def test_limits_of_the_gate_are_in_the_executed_action(armed: Rig) -> None:
    """Down is where the box ends after 8 mm."""
    armed.env.reset(5)
    results = drive(armed, np.array([0, 0, -1, 0, 0, 0], np.float32), 4)
    *_, info = results[-1]
    assert "workspace" in info["filter_reason"].split(",")
    assert abs(info["executed_action"][2]) < 0.1
    total = sum(result[-1]["executed_action"][2] for result in results) * task.MAX_TRANSLATION_STEP
    assert total == pytest.approx(task.MOTION_LIMITS.workspace_low[2] - task.start_pose(5).position[2], abs=0.004)


def test_a_missed_step_faults_and_nothing_moves_until_the_operator_arms(armed: Rig) -> None:
    """The gate stops the arm by itself; the environment reports it and does not re-arm."""
    armed.env.reset(6)
    armed.env.step(np.array([0.3, 0, 0, 0, 0, 0], np.float32))
    time.sleep(0.6)
    *_, terminated, truncated, info = armed.env.step(np.zeros(6, np.float32))
    assert (terminated, truncated, info["fault"]) == (False, True, "stale_command")
    with pytest.raises(RobotUnavailableError, match=r"FAULT.*stale_command.*/safety_gate/arm"):
        armed.env.reset(6)
    armed.arm()
    armed.env.reset(6)


def test_a_frozen_camera_ends_the_episode_with_the_arm_at_rest(graph: SafeReachGraph, armed: Rig) -> None:
    armed.env.reset(7)
    drive(armed, np.array([0.2, 0, 0, 0, 0, 0], np.float32), 3)
    camera = graph.nodes["camera"]
    camera.signal(signal.SIGSTOP)
    try:
        frozen = time.monotonic()
        info, truncated = {}, False
        while not truncated:
            *_, truncated, info = armed.env.step(np.array([0.2, 0, 0, 0, 0, 0], np.float32))
            assert time.monotonic() - frozen < 2.0  # of which it waits a second for a last picture
        assert info["fault"] in ("stale_image", "camera_silent"), "both watch, with the same patience"
        assert armed.client.gate()["reason"] == "camera_silent", "the gate has seen it for itself"
    finally:
        camera.signal(signal.SIGCONT)
    armed.arm()
    armed.env.reset(7)


def test_a_dead_camera_is_named_by_its_topic(graph: SafeReachGraph, armed: Rig) -> None:
    graph.nodes["camera"].signal(signal.SIGKILL)
    time.sleep(0.6)  # until then its last picture is young enough to begin with
    try:
        with pytest.raises(RobotUnavailableError, match=r"/camera/color/image_raw.*camera_node"):
            armed.env.reset(8)
    finally:
        graph.start_camera()
    armed.reset_when_up(8)
