"""The record that a torque-controlled arm sends is the one that franky_sim would have built."""

from collections.abc import Iterator

import numpy as np
import pytest
from franky_sim.franka_robot_protocol import MoveCommandControllerMode, MoveCommandMotionGeneratorMode, UDPCommand
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.franka_robot_state import FrankaRobotState

from sim.safe_reach.arm import ArmSimulator
from sim.safe_reach.fci import STATE_RECORD, ArmServer, ArmSimulationServer
from sim.safe_reach.scene import build_simulator
from sim.safe_reach.silence import HELD_AFTER, LOST_COMMANDS, SilenceReflex

CYCLES = 60


@pytest.fixture
def served() -> Iterator[tuple[ArmSimulator, ArmServer]]:
    with build_simulator() as simulator:
        server = ArmSimulationServer(simulator)
        server.init()
        yield simulator, server.robot_servers[0]
        server.cleanup()


def begin(arm: ArmServer) -> None:
    arm.start_motion(MoveCommandControllerMode.kExternalController, MoveCommandMotionGeneratorMode.kNone, 7)


def record(packed: bytes) -> np.void:
    return np.frombuffer(packed, STATE_RECORD)[0]


def test_the_record_is_laid_out_as_franky_sim_packs_it() -> None:
    for number, name in enumerate(STATE_RECORD.names):
        layout = STATE_RECORD[name]
        if layout.base.kind == "f" and layout.shape:
            values = tuple(float(100 * number + i) for i in range(*layout.shape))
            field = values[0] if name in ("m_ee", "m_load") else values
            packed = FrankaRobotState(**{name: field}).pack_state()
            np.testing.assert_array_equal(record(packed)[name], values, err_msg=name)


def test_every_field_is_franky_sims_own(served: tuple[ArmSimulator, ArmServer]) -> None:
    simulator, arm = served
    begin(arm)
    arm.robot.set_load(0.3, (0.01, 0.02, 0.03), (0.001, 0, 0, 0, 0.001, 0, 0, 0, 0.001))
    random = np.random.default_rng(0)
    for _ in range(CYCLES):
        arm.robot.torque_control(random.uniform(-3, 3, 7))
        simulator.step()
        ours, theirs = record(arm._get_state_bytes()), record(FrankaRobotServer._get_state_bytes(arm))
        for name in STATE_RECORD.names:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=2e-6, err_msg=name)
    assert np.abs(ours["dq"]).max() > 1e-3 and np.abs(ours["ddq_d"]).max() > 1e-2
    assert ours["m_load"] == np.float32(0.3) and np.abs(ours["O_ddP_EE_c"]).max() > 1e-3


def test_a_stopped_motion_holds_where_the_arm_is(served: tuple[ArmSimulator, ArmServer]) -> None:
    """The position that it holds comes from components that were not worked out during the motion."""
    simulator, arm = served
    begin(arm)
    for _ in range(5):
        arm.robot.torque_control(np.full(7, 2.0))
        simulator.step()
    q = arm.robot.inner_state.q
    arm.stop_motion(send_preemption_signal=False)
    for _ in range(5):
        arm._post_process_commands()
        simulator.step()
    np.testing.assert_allclose(record(arm._get_state_bytes())["q_d"], q, atol=1e-6)


def test_a_silent_client_does_not_fling_the_arm(served: tuple[ArmSimulator, ArmServer]) -> None:
    """Not held, it has turned by 0.064 rad when the motion is aborted."""
    simulator, arm = served
    begin(arm)
    reflex = SilenceReflex(arm)
    q = np.array(arm.robot.inner_state.q)
    torques = (0.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    arm._handle_udp_command(UDPCommand.STRUCT.pack(1, *[0.0] * 38, False, False, *torques, False))
    moved = []
    for _ in range(LOST_COMMANDS + 50):
        arm._post_process_commands()
        reflex.step()
        simulator.step()
        moved.append(np.abs(arm.robot.inner_state.q - q).max())
    assert moved[HELD_AFTER] > 1e-4 and max(moved) < 0.02
    assert np.ptp(moved[-30:]) < 1e-3, "at rest"
    assert not arm.current_motion_id, "aborted"
