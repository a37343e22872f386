"""SafeReach as a `RobotEnv`, faster than real time.

One control step is ten steps of the safety gate's motion integrator, each followed by physics under
the arm's impedance law: the same path from action to motion as on the robot.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.interfaces import Observation, RobotEnv, StepResult
from safe_policy_core.safety.motion import CONTROL_PERIOD, GATE_PERIOD, MotionIntegrator
from sim.safe_reach.camera import SceneCamera
from sim.safe_reach.contacts import ContactMonitor
from sim.safe_reach.control import ImpedanceController
from sim.safe_reach.layouts import sample_layout
from sim.safe_reach.scene import Scene, build_model
from sim.safe_reach.task import (
    EPISODE_STEPS,
    IMAGE_SIZE,
    MAX_ROTATION_STEP,
    MAX_TRANSLATION_STEP,
    MOTION_LIMITS,
    NOMINAL_QUATERNION,
    START_JOINTS,
    VECTOR_SPECS,
    Layout,
    check_task,
    image_specs,
    start_pose,
)

PHYSICS_PERIOD = 0.005
"""[s]. At 5 ms free motion differs from that at 1 ms by less than 0.5 mm, and the step costs a third."""
_GATE_STEPS = round(CONTROL_PERIOD / GATE_PERIOD)
_PHYSICS_STEPS = round(GATE_PERIOD / PHYSICS_PERIOD)
_TWIST = np.repeat([MAX_TRANSLATION_STEP, MAX_ROTATION_STEP], 3) / CONTROL_PERIOD
_SCALE = _TWIST * CONTROL_PERIOD


class SafeReachEnv(RobotEnv):
    """Reach the target without touching the obstacles.

    task: one of `task.TASKS`; an unknown one raises `ConfigurationError`.
    images: with pictures the observation is `image` (height, width, 3) uint8 and `pose` (6,); without,
        `vector` (privileged positions, see `vector`) and `pose`.
    image_size: height and width [pixels], at most 480 x 640.

    Reward 1 on the step that touches the target, which terminates the episode. Cost 1 on every step
    within which an obstacle is touched or has not yet come to rest since. Truncated after 80 steps.
    """

    def __init__(self, task: str = "original", images: bool = True,
                 image_size: tuple[int, int] = (IMAGE_SIZE, IMAGE_SIZE)) -> None:
        check_task(task)
        self.task_name = task
        self.specs = image_specs(*image_size) if images else VECTOR_SPECS
        self._image_size = image_size if images else None
        self._model = build_model()
        self._model.opt.timestep = PHYSICS_PERIOD
        self._data = mujoco.MjData(self._model)
        self.scene = Scene(self._model, self._data)
        self._controller = ImpedanceController(self.scene)
        self._integrator = MotionIntegrator(MOTION_LIMITS)
        self._monitor = ContactMonitor(self.scene)
        self._nominal = np.array(NOMINAL_QUATERNION)
        self._cameras: dict[tuple[int, int], SceneCamera] = {}
        self.layout = Layout()
        self._running = False

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        """Places the layout and start pose that (task, seed) fix. `info["layout"]` is the layout as JSON."""
        return self.start(sample_layout(self.task_name, seed), seed)

    def start(self, layout: Layout, seed: int, pose: Pose | None = None) -> tuple[Observation, dict[str, Any]]:
        """As `reset`, with a layout and, if given, a start pose of the caller's choice."""
        mujoco.mj_resetData(self._model, self._data)
        self.layout = layout
        self.scene.place(layout)
        self._data.qpos[self.scene.arm_qpos] = START_JOINTS
        self._controller.set_target(start_pose(seed) if pose is None else pose)
        self._controller.solve_joints()
        mujoco.mj_forward(self._model, self._data)
        self._controller.hold_posture()
        self._integrator.reset(self.scene.tool)
        self._monitor.clear()
        self._step_count, self._violation, self._running = 0, False, True
        return self._observation(), {"layout": layout.to_json(), "task": self.task_name, "seed": int(seed),
                                     "time_ns": self._time_ns()}

    def step(self, action: np.ndarray) -> StepResult:
        """One tenth of a second."""
        if not self._running:
            raise RuntimeError("step: no episode is running, call reset first")
        action = self.specs.action.validate(action)
        before = self._integrator.target_vector
        reasons, cost, reward = self._move(action.astype(float) * _TWIST)
        executed = (self._integrator.target_vector - before) / _SCALE
        self._step_count += 1
        self._violation |= cost
        truncated = self._step_count >= EPISODE_STEPS and not reward
        self._running = not (reward or truncated)
        info = {"executed_action": np.clip(executed, -1, 1).astype(np.float32), "filter_reason": ",".join(reasons),
                "success": reward, "violation": self._violation, "time_ns": self._time_ns()}
        return self._observation(), float(reward), float(cost), reward, truncated, info

    def _move(self, twist: np.ndarray) -> tuple[list[str], bool, bool]:
        """Runs one control period. Returns what limited the motion, and whether cost and reward occurred."""
        model, data, monitor, controller = self._model, self._data, self._monitor, self._controller
        reasons: dict[str, None] = {}
        cost, touched = monitor.cost, monitor.touching
        controller.update_null_space()
        for _ in range(_GATE_STEPS):
            for physics_step in range(_PHYSICS_STEPS):
                mujoco.mj_step1(model, data)
                if physics_step == 0:
                    reasons.update(dict.fromkeys(self._integrator.advance(twist, GATE_PERIOD, self.scene.tool)))
                    controller.set_target(self._integrator.target)
                    controller.linearise()
                controller.apply()
                mujoco.mj_step2(model, data)
                monitor.update()
                cost |= monitor.cost
                touched |= monitor.touching
        # Positions of sites and bodies belong to the start of the last step until this.
        mujoco.mj_kinematics(model, data)
        return list(reasons), cost, touched

    def _time_ns(self) -> int:
        """Simulated time since the reset."""
        return round(self._step_count * CONTROL_PERIOD * 1e9)

    @property
    def pose(self) -> np.ndarray:
        """(6,) float32 measured tool pose, as the `pose` observation has it."""
        return self.scene.tool.to_vector(self._nominal).astype(np.float32)

    def vector(self) -> np.ndarray:
        """(25,) float32: pose (6), per obstacle x, y, z [m] and 1 when it is there (4 x 4), target x, y, z."""
        positions = self._data.xpos[self.scene.obstacle_bodies]
        there = (self.scene.shapes[:-1] > 0).astype(float)
        obstacles = np.column_stack([positions * there[:, None], there])
        return np.concatenate([self.pose, obstacles.ravel(), self._data.mocap_pos[0]]).astype(np.float32)

    def _observation(self) -> Observation:
        if self._image_size:
            return {"image": self.render(*self._image_size), "pose": self.pose}
        return {"vector": self.vector(), "pose": self.pose}

    def _camera(self, height: int, width: int) -> SceneCamera:
        if (height, width) not in self._cameras:
            self._cameras[height, width] = SceneCamera(self.scene, height, width)
        return self._cameras[height, width]

    def render(self, height: int = 480, width: int = 640) -> np.ndarray:
        """(height, width, 3) uint8 RGB picture of the present state, at most 480 x 640."""
        return self._camera(height, width).image()

    def segmentation(self, height: int = IMAGE_SIZE, width: int = IMAGE_SIZE) -> np.ndarray:
        """(height, width) int, see `SceneCamera.segmentation`."""
        return self._camera(height, width).segmentation()

    def close(self) -> None:
        for camera in self._cameras.values():
            camera.close()
        self._cameras.clear()
        self._running = False
