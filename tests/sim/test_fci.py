"""The record that a torque-controlled arm sends is the one that franky_sim would have built."""

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from franky_sim.franka_robot_protocol import (
    MoveCommandControllerMode,
    MoveCommandMotionGeneratorMode,
    RobotMode,
    UDPCommand,
)
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.franka_robot_state import FrankaRobotState

from sim.safe_reach.arm import ArmSimulator
from sim.safe_reach.fci import STATE_RECORD, ArmServer, ArmSimulationServer
from sim.safe_reach.lockstep import LOST_COMMANDS, Lockstep
from sim.safe_reach.scene import build_simulator

CYCLES = 60


@pytest.fixture
def served() -> Iterator[tuple[ArmSimulator, ArmServer]]:
    with build_simulator() as simulator:
        server = ArmSimulationServer(simulator, hostname_candidates=[f"127.0.0.{last}" for last in range(80, 90)])
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
    arm.reset_current_motion_id()
    for _ in range(500):
        arm._post_process_commands()
        simulator.step()
    state = record(arm._get_state_bytes())
    np.testing.assert_allclose(state["q"], q, atol=1e-4)
    np.testing.assert_allclose(state["dq"], 0.0, atol=1e-3)
    assert state["robot_mode"] == RobotMode.kIdle


class Client:
    """libfranka's side of the cyclic exchange: a socket that answers states with torques."""

    def __init__(self, arm: ArmServer) -> None:
        self._commands = socket.create_connection((arm.hostname, 1337))
        states = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        states.bind(("", 0))
        states.settimeout(1.0)
        self._states = states
        self._commands.sendall(struct.pack("<IIIHH", 0, 1, 16, 10, states.getsockname()[1]))
        while not arm.udp_connected:
            arm.process_commands()
        arm.send_state()
        self._states.recv(4096)  # franky_sim ignores an answer to the very first

    def answer(self, torques: tuple[float, ...], delay: float = 0.0) -> tuple[str, int]:
        """To the next state, `delay` [s] later. Returns where the state came from."""
        state, address = self._states.recvfrom(4096)
        time.sleep(delay)
        self.send(state, torques, address)
        return address

    def newest(self) -> tuple[bytes, tuple[str, int]]:
        """The last state that came, and its sender."""
        received = self._states.recvfrom(4096)
        while select.select([self._states], [], [], 0.0)[0]:
            received = self._states.recvfrom(4096)
        return received

    def send(self, state: bytes, torques: Sequence[float], address: tuple[str, int]) -> None:
        number, = struct.unpack_from("<Q", state)
        self._states.sendto(UDPCommand.STRUCT.pack(number, *[0.0] * 38, False, False, *torques, False), address)

    def close(self) -> None:
        self._commands.close()
        self._states.close()


@pytest.fixture
def client(served: tuple[ArmSimulator, ArmServer]) -> Iterator[Client]:
    simulator, arm = served
    arm.process_commands()
    simulator.step()
    with contextlib.closing(Client(arm)) as client:
        begin(arm)
        yield client


TORQUES = (0.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_states_leave_from_the_arms_own_address(served: tuple[ArmSimulator, ArmServer], client: Client) -> None:
    """Or a cut connection would not be one: franky_sim sends them from 127.0.0.1."""
    _, arm = served
    arm.send_state()
    assert client.answer(TORQUES)[0] == arm.hostname != "127.0.0.1"


def test_simulated_time_waits_for_a_late_answer(served: tuple[ArmSimulator, ArmServer], client: Client) -> None:
    simulator, arm = served
    lockstep = Lockstep(arm)
    arm.send_state()
    client.answer(TORQUES)
    lockstep.exchange()
    simulator.step()
    for torque in (1.0, -2.0, 3.0):
        arm.send_state()
        late = threading.Thread(target=client.answer, args=((torque, *TORQUES[1:]), 0.008))
        began = time.monotonic()
        late.start()
        lockstep.exchange()
        late.join()
        assert time.monotonic() - began >= 0.008
        simulator.step()
        assert arm.robot.desired_torque[0] == pytest.approx(torque), "the answer to this very state"


def test_a_silent_client_does_not_fling_the_arm(served: tuple[ArmSimulator, ArmServer], client: Client) -> None:
    """Not held, it has turned by 0.064 rad when the motion is aborted."""
    simulator, arm = served
    lockstep = Lockstep(arm)
    q = np.array(arm.robot.inner_state.q)
    arm.send_state()
    client.answer(TORQUES)
    moved = []
    for _ in range(LOST_COMMANDS + 50):
        lockstep.exchange()
        simulator.step()
        arm.send_state()
        moved.append(np.abs(arm.robot.inner_state.q - q).max())
    assert 0 < moved[0] < 1e-4, "the last torque acts for the millisecond it was made for"
    assert max(moved) < 0.003
    assert np.ptp(moved[-30:]) < 1e-4, "at rest"
    assert not arm.current_motion_id, "aborted"


def test_a_client_that_was_silent_goes_on_from_its_own_torque(
        served: tuple[ArmSimulator, ArmServer], client: Client) -> None:
    """Not from that of the brake, which a client that changes its torque little by little would keep up: the arm turned
    by 0.84 rad within 0.2 s here."""
    simulator, arm = served
    lockstep = Lockstep(arm)

    def answer() -> np.void:
        """As franky does: 0.4 Nm towards what it wants, from what it is told; damping alone, which holds any arm."""
        arm.send_state()
        state, address = client.newest()
        told = record(state[8:])
        torques = told["tau_J_d"] + np.clip(-2.0 * told["dq"] - told["tau_J_d"], -0.4, 0.4)
        client.send(state, torques, address)
        lockstep.exchange()
        simulator.step()
        return told

    arm.robot._data.qvel[arm.robot._dof] = (0.2, 0.0, 0.2, 0.0, 0.1, 0.0, 0.0)
    for _ in range(20):
        before = answer()
    for _ in range(3):  # the first waits for it
        lockstep.exchange()
        simulator.step()
        arm.send_state()
    assert np.abs(arm.robot._applied_torques - arm.robot._data.qfrc_bias[arm.robot._dof]).max() > 20, "the arm brakes"
    np.testing.assert_allclose(answer()["tau_J_d"], before["tau_J_d"], atol=0.5)
    rest = np.array(arm.robot.inner_state.q)
    for _ in range(200):
        answer()
    assert np.abs(arm.robot.inner_state.q - rest).max() < 0.05
