"""The arm through libfranka: a real FR3, or the FCI simulator, which speaks the same protocol."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import threading
import time
from typing import Any

import franky
import numpy as np
from franky import Affine, CartesianImpedanceTracker, PostureTask, RealtimeConfig, RobotMode

from safe_policy_core.errors import RobotUnavailableError
from safe_policy_core.geometry import Pose
from safe_policy_core.scheduling import on_simulated_arms_core
from safe_policy_ros.arm.backend import ArmState
from safe_policy_ros.arm.config import JOINTS, ArmConfig

log = logging.getLogger(__name__)

CONTROLLABLE = (RobotMode.Idle, RobotMode.Move)
RETRY_PERIOD = 0.5
READ_BACK_TIMEOUT = 0.5
"""[s] A setting is in the arm's state one of its milliseconds after it was accepted."""
READ_BACK_TOLERANCE = 1e-5
"""[kg, m, kg m^2] The arm keeps single precision."""
# franky translates most of libfranka's exceptions; of the socket layer below it a RuntimeError comes through.
ARM_ERRORS = (franky.Exception, RuntimeError)


class FrankyArm:
    """franky's Cartesian impedance tracker: 1 kHz torques in libfranka's own thread, targets at any rate.

    The tracker has no watchdog of its own: it holds its last target for ever. franka_node has one.
    """

    def __init__(self, config: ArmConfig) -> None:
        self._config = config
        self._robot = _connect(config)
        self._tracker: CartesianImpedanceTracker | None = None
        try:
            self._prepare()
        except ARM_ERRORS as error:
            raise RobotUnavailableError(f"robot at {config.address}: {_line(error)}") from error

    def _prepare(self) -> None:
        """What the arm must know before it moves: thresholds of collision, tool and load.

        libfranka raises when the arm refuses one. The thresholds of collision are not in the arm's state, so the
        acceptance is all that can be known of them; they are set anew before every motion.
        """
        config, robot = self._config, self._robot
        self._set_collision_behavior()
        tool = Affine(np.asarray(config.tool_translation), np.asarray(config.tool_quaternion))
        robot.set_ee(tool.matrix.T.ravel())  # column-major
        robot.set_load(config.load_mass, np.asarray(config.load_centre), np.asarray(config.load_inertia))
        deadline = time.monotonic() + READ_BACK_TIMEOUT
        while self._differences() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._check()

    def _set_collision_behavior(self) -> None:
        config = self._config
        self._robot.set_collision_behavior([config.collision_torque] * JOINTS, [config.collision_force] * 6)

    def _check(self) -> None:
        """Raises `RobotUnavailableError` naming each setting that the arm has otherwise than it was told."""
        if differences := self._differences():
            raise RobotUnavailableError(f"robot at {self._config.address}: {'; '.join(differences)}; has Desk or "
                                        "another program changed it? Start this node again")

    def _differences(self) -> list[str]:
        config, state = self._config, self._robot.state
        tool = Affine(np.asarray(config.tool_translation), np.asarray(config.tool_quaternion))
        settings = (("load_mass", [config.load_mass], state.m_load, "kg"),
                    ("load_centre", config.load_centre, state.F_x_Cload, "m"),
                    ("load_inertia", config.load_inertia, np.asarray(state.I_load).T, "kg m^2"),
                    ("tool", tool.matrix, state.NE_T_EE.matrix, "m, 1"))
        return [f"{name}: expected {np.asarray(wanted).tolist()} {unit}, the arm has {np.ravel(found).tolist()}"
                for name, wanted, found, unit in settings
                if not np.allclose(np.ravel(wanted), np.ravel(found), rtol=0, atol=READ_BACK_TOLERANCE)]

    def read(self) -> ArmState:
        try:
            state = self._robot.state
        except ARM_ERRORS as error:
            raise RobotUnavailableError(f"robot at {self._config.address}: {_line(error)}") from error
        pose = state.O_T_EE
        return ArmState(Pose(np.array(pose.translation), np.array(pose.quaternion)), np.array(state.q),
                        np.array(state.dq), np.array(state.tau_J), np.array(state.O_F_ext_hat_K),
                        state.time.to_sec(), _fault(state),
                        # libfranka: zero when no control loop runs.
                        state.control_command_success_rate if state.robot_mode == RobotMode.Move else None)

    def start(self) -> None:
        config = self._config
        try:
            self._check()
            self._set_collision_behavior()
            with on_simulated_arms_core() if _simulated(config.address) else contextlib.nullcontext():
                self._tracker = CartesianImpedanceTracker(
                    self._robot, translational_stiffness=config.translational_stiffness,
                    rotational_stiffness=config.rotational_stiffness,
                    damping=np.repeat([config.translational_damping, config.rotational_damping], 3),
                    translational_error_clip=np.full(3, config.max_error[0]),
                    rotational_error_clip=np.full(3, config.max_error[1]),
                    max_delta_tau=config.max_torque_step,
                    posture_task=PostureTask(self._robot.state.q, config.posture_stiffness, config.posture_damping))
        except ARM_ERRORS as error:
            raise RobotUnavailableError(f"robot at {config.address}: no motion possible: {_line(error)}") from error

    def track(self, pose: Pose) -> None:
        if self._tracker is None:
            raise RuntimeError("FrankyArm.track: start must come first")
        self._tracker.set_target(Affine(pose.position, pose.quaternion))

    def stop(self) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        try:
            tracker.stop()
        except ARM_ERRORS as error:
            # The motion had ended by itself; the reason is in the arm's state as well, where it stays.
            log.error("the arm ended the motion: %s", _line(error))

    @property
    def tracking(self) -> bool:
        return self._tracker is not None and self._tracker.is_running

    def recover(self) -> str:
        self.stop()
        try:
            return "" if self._robot.recover_from_errors() else f"the arm keeps its errors: {_fault(self._robot.state)}"
        except ARM_ERRORS as error:
            return _line(error)

    @property
    def settings(self) -> dict[str, float | str]:
        config, state = self._config, self._robot.state
        return {"address": config.address, "realtime": "enforce" if config.realtime else "ignore",
                "translational_stiffness_N_per_m": config.translational_stiffness,
                "rotational_stiffness_Nm_per_rad": config.rotational_stiffness,
                "collision_torque_Nm": config.collision_torque, "collision_force_N": config.collision_force,
                "load_mass_kg": float(state.m_load), "end_effector_mass_kg": float(state.m_ee)}

    def close(self) -> None:
        self.stop()


def _connect(config: ArmConfig) -> franky.Robot:
    """Tries until `connect_timeout`: the simulator may still be starting."""
    realtime = RealtimeConfig.Enforce if config.realtime else RealtimeConfig.Ignore
    deadline = time.monotonic() + config.connect_timeout
    problem = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        outcome: list[Any] = []

        def attempt(outcome: list[Any] = outcome) -> None:
            try:
                outcome.append(franky.Robot(config.address, realtime_config=realtime))
            except ARM_ERRORS as error:
                outcome.append(error)

        # libfranka waits for minutes for an address where nobody is; a thread of it may wait there.
        thread = threading.Thread(target=attempt, name="connect", daemon=True)
        thread.start()
        thread.join(left)
        if outcome and isinstance(outcome[0], franky.Robot):
            return outcome[0]
        if outcome:
            problem = _line(outcome[0])
            if isinstance(outcome[0], (franky.RealtimeException, franky.IncompatibleVersionException)):
                break
        time.sleep(min(RETRY_PERIOD, max(0.0, deadline - time.monotonic())))
    raise RobotUnavailableError(f"robot at {config.address} does not answer within {config.connect_timeout:g} s "
                                f"({problem}); check its address, power, and that FCI is activated in Desk")


def _simulated(address: str) -> bool:
    """Whether the arm is one of this machine's."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False  # a name


def _fault(state: franky.RobotState) -> str:
    errors = str(state.current_errors).strip("[]\" ").replace('"', "")
    if errors:
        return f"errors {errors}"
    return "" if state.robot_mode in CONTROLLABLE else f"mode {state.robot_mode.name}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
