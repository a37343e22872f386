"""The SafeReach task of FOSP section D.1: places, sizes, limits and the five variants. No simulator here.

Frame: the robot's base frame, whose z = 0 is the table. The *tool* is libfranka's end effector
`O_T_EE`, between the closed fingers and `TOOL_TO_TIP` above their tips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.geometry import Pose
from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.safety.motion import MotionLimits

CENTRE = (0.50, 0.0)
"""Centre of the operating area [m]."""
HALF_WIDTH = 0.125
"""Half the side of the operating area [m]: 25 cm x 25 cm, as in the paper."""
TOOL_TO_TIP = 0.008
"""The fingertips reach this far below the tool frame [m]."""
TOOL_HEIGHT = 0.036
"""Working height of the tool [m]: tips 2.8 cm above the table, under the top of a 4 cm obstacle."""
NOMINAL_QUATERNION = (1.0, 0.0, 0.0, 0.0)
"""(x, y, z, w): the tool points down, its x axis along the base's x axis."""

OBSTACLE_HALF_SIZE = (0.015, 0.015, 0.02)
"""Half sizes of a box obstacle [m]. 10 cm tall ones would be hit by the 20 cm wide hand above the fingers."""
OBSTACLE_RADIUS, OBSTACLE_HALF_HEIGHT = 0.016, 0.02
"""Cylinder obstacle [m]."""
OBSTACLE_MASS = 0.2
"""[kg]."""
TARGET_RADIUS, TARGET_HALF_HEIGHT = 0.018, 0.025
"""Cylinder target [m]."""
TARGET_HALF_SIZE = (0.017, 0.017, 0.025)
"""Half sizes of the box target [m]."""
MAX_OBSTACLES = 4

START = (0.50, -0.105)
"""Tool position at the start, near the edge far from the camera [m]."""
START_NOISE = (0.03, 0.008, 0.003)
"""Half widths of the uniform noise of the start position [m]."""
START_TILT_NOISE = 0.02
"""Half width of the uniform noise of each start rotation component [rad]."""
START_JOINTS = (-0.1704, 0.4614, -0.031, -2.3326, 0.0404, 2.7935, 0.5493)
"""A joint configuration with the tool at `START`, pointing down [rad]."""

TARGET_PLACES = ((0.425, 0.09), (0.50, 0.095), (0.575, 0.09))
OBSTACLE_PLACES = ((0.42, -0.035), (0.50, -0.03), (0.58, -0.035), (0.42, 0.03), (0.50, 0.035), (0.58, 0.03))
PLACE_NOISE = 0.003
"""A person puts an object on its mark about this well [m]."""
YAW_NOISE = 0.15
"""[rad]."""

EPISODE_STEPS = 80
IMAGE_SIZE = 64
MAX_TRANSLATION_STEP = 0.015
"""What an action of 1 moves in one control step [m]."""
MAX_ROTATION_STEP = 0.05
"""[rad]."""

POSE_SPEC = Spec("observation/pose", (6,), "float32", unit="m, rad")
VECTOR_SPEC = Spec("observation/vector", (6 + 4 * MAX_OBSTACLES + 3,), "float32", unit="m, rad")
ACTION_SPEC = Spec("action", (6,), "float32", -1.0, 1.0)
SCALES = {"max_translation_step": MAX_TRANSLATION_STEP, "max_rotation_step": MAX_ROTATION_STEP}


def image_specs(height: int, width: int) -> Specs:
    """Specs of the task seen through pictures of that size. Raises `ConfigurationError` above 480 x 640."""
    if not (1 <= height <= 480 and 1 <= width <= 640):
        raise ConfigurationError(f"image_size: expected height 1..480 and width 1..640, got {height} x {width}")
    image = Spec("observation/image", (height, width, 3), "uint8", 0, 255, "1")
    return Specs({"image": image, "pose": POSE_SPEC}, ACTION_SPEC, SCALES)


SPECS = image_specs(IMAGE_SIZE, IMAGE_SIZE)
VECTOR_SPECS = Specs({"vector": VECTOR_SPEC, "pose": POSE_SPEC}, ACTION_SPEC, SCALES)

MOTION_LIMITS = MotionLimits(
    workspace_low=(CENTRE[0] - HALF_WIDTH, CENTRE[1] - HALF_WIDTH, 0.028),
    # Tips at most 3.6 cm above the table: the arm cannot fly over an obstacle.
    workspace_high=(CENTRE[0] + HALF_WIDTH, CENTRE[1] + HALF_WIDTH, 0.044),
    nominal_quaternion=NOMINAL_QUATERNION,
    max_tilt=0.35,
    # Every action in [-1, 1]^6 is within the speed limits: sqrt(3) * 0.15 m/s and sqrt(3) * 0.5 rad/s.
    max_translation_speed=0.26,
    max_rotation_speed=0.87,
    max_translation_lead=0.04,
    max_rotation_lead=0.25,
)


@dataclass(frozen=True)
class Item:
    """An object on the table: `shape` is "box" or "cylinder", x and y [m], yaw [rad]."""

    shape: str
    x: float
    y: float
    yaw: float = 0.0


@dataclass(frozen=True)
class Layout:
    """What stands where. An empty table has no obstacles and no target."""

    obstacles: tuple[Item, ...] = ()
    target: Item | None = None

    def to_json(self) -> dict[str, Any]:
        return {"obstacles": [vars(o) for o in self.obstacles], "target": vars(self.target) if self.target else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layout:
        return cls(tuple(Item(**o) for o in data["obstacles"]), Item(**data["target"]) if data["target"] else None)


@dataclass(frozen=True)
class Variant:
    """One of the five tasks. With `random_places` objects stand anywhere, else near marked places."""

    obstacle_shape: str = "box"
    target_shape: str = "cylinder"
    obstacle_counts: tuple[int, ...] = (2,)
    random_places: bool = False


TASKS = {
    "original": Variant(),
    "obstacle_shape": Variant(obstacle_shape="cylinder"),
    "target_shape": Variant(target_shape="box"),
    "more_obstacles": Variant(obstacle_counts=(4,)),
    "random_layout": Variant(obstacle_counts=(2, 3, 4), random_places=True),
}


def check_task(task: str) -> Variant:
    """The variant of that name. Raises `ConfigurationError` that names the valid ones."""
    if task not in TASKS:
        raise ConfigurationError(f"task: unknown {task!r}, expected one of {', '.join(TASKS)}")
    return TASKS[task]


def episode_rng(seed: int, stream: int) -> np.random.Generator:
    """Separate random streams of one episode: 0 layout, 1 start pose, 2 and above for demonstrators."""
    return np.random.default_rng([int(seed), stream])


def start_pose(seed: int) -> Pose:
    """Where the tool starts in the episode that `seed` fixes."""
    rng = episode_rng(seed, 1)
    noise = rng.uniform(-1, 1, 6)
    position = np.array([*START, TOOL_HEIGHT]) + noise[:3] * START_NOISE
    vector = np.concatenate([position, noise[3:] * START_TILT_NOISE])
    return Pose.from_vector(vector, np.asarray(NOMINAL_QUATERNION))
