"""The SafeReach scene: franky_sim's FR3, a table with the operating area, obstacles, a target, a camera.

ONE model holds every variant. Each obstacle body has a box and a cylinder of which at most one
exists at a time, so a new layout is a few array writes and never a recompile: the server that
runs at 1 kHz can change the task between two steps.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.vision import Projection
from sim.safe_reach import meshes, task
from sim.safe_reach.arm import ArmSimulator, close_hand
from sim.safe_reach.model_cache import compiled_once

ROBOT_PREFIX = "robot0_"
CAMERA = "third_person"
CAMERA_POSITION = (0.50, 0.76, 0.65)
"""One metre from the table, across from the start, 40 degrees above the horizon [m]. From the robot's side its
own arm hides the table, and from higher up the wrist hides the obstacles behind it: of 90 places searched by
segmentation renders this one sees the most."""
CAMERA_TARGET = (0.50, -0.005, 0.01)
CAMERA_FOVY = 17.5
"""Vertical field of view [degrees]: the operating area fills a square picture, as after cropping a wider one."""

SHAPES = ("box", "cylinder")
GREEN, RED = (0.10, 0.62, 0.20, 1.0), (0.85, 0.10, 0.10, 1.0)
_PARKED = (-1.0, -1.0, 0.5)
"""Unused obstacles float here without gravity, contacts or colour [m]."""
_UNSEEN_GROUP = 5
_UNSEEN_LINKS = ("fr3_link0", "fr3_link1", "fr3_link2", "fr3_link3", "fr3_link4")
"""Never in the camera's view (a test compares the pictures); their meshes cost half the rendering time."""

# Contact classes (contype bits). The arm meets table, obstacles and target; never itself.
_ARM, _TABLE, _OBSTACLE, _TARGET = 1, 2, 4, 8


def build_simulator() -> ArmSimulator:
    """franky_sim's simulator with this scene added, not started: `SimulationServer` can run it."""
    simulator = ArmSimulator()
    simulator.add_robot(initial_q=task.START_JOINTS)
    meshes.lighten(simulator.scene.find("asset"), Path(simulator.scene.find("compiler").get("meshdir")))
    _simplify(simulator.scene)
    _arm(simulator.scene)
    _table(simulator.worldbody)
    _objects(simulator.worldbody)
    return simulator


def build_model() -> mujoco.MjModel:
    """The compiled scene, as the simulator has it once started. Compiled once, then read from a cache."""
    model = compiled_once(lambda: mujoco.MjModel.from_xml_string(
        ET.tostring(build_simulator().scene, encoding="unicode")), sources=(__file__, task.__file__, meshes.__file__))
    close_hand(model, ROBOT_PREFIX)
    return model


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{v:.9g}" for v in values)


def _simplify(scene: ET.Element) -> None:
    """Drops what costs time and is not used: shadows, multisampling, actuators (torques are applied directly)."""
    worldbody = scene.find("worldbody")
    for element in [e for e in worldbody if e.tag in ("light", "geom")]:
        worldbody.remove(element)
    for name in ("actuator", "tendon"):
        section = scene.find(name)
        for element in list(section):
            section.remove(element)
    visual = scene.find("visual")
    for element in list(visual):
        visual.remove(element)
    ET.SubElement(visual, "headlight", ambient="0.35 0.35 0.35", diffuse="0.35 0.35 0.35", specular="0 0 0")
    ET.SubElement(visual, "quality", shadowsize="0", offsamples="0")
    ET.SubElement(visual, "global", offwidth="640", offheight="480")
    ET.SubElement(worldbody, "light", directional="true", castshadow="false", pos="0.5 0 1.5", dir="0.4 -0.3 -1",
                  diffuse="0.45 0.45 0.45", specular="0 0 0")


def _arm(scene: ET.Element) -> None:
    """Marks the tool, sets contact classes and hides the links that the camera never sees."""
    hand = scene.find(f".//body[@name='{ROBOT_PREFIX}hand']")
    # libfranka's O_T_EE, by which both ways into the scene report the pose.
    ET.SubElement(hand, "site", name="tool", pos="0 0 0.1034")
    collision = scene.find(".//default[@class='collision']/geom")
    collision.set("contype", str(_ARM))
    collision.set("conaffinity", "0")
    for link in _UNSEEN_LINKS:
        for geom in scene.findall(f".//body[@name='{ROBOT_PREFIX}{link}']/geom[@class='visual']"):
            geom.set("group", str(_UNSEEN_GROUP))


def _table(worldbody: ET.Element) -> None:
    ET.SubElement(worldbody, "geom", name="table", type="plane", size="2 2 0.1", group="4",
                  contype=str(_TABLE), conaffinity=str(_ARM | _OBSTACLE), friction="0.6 0.005 0.0001")
    visual = {"contype": "0", "conaffinity": "0", "type": "box"}
    ET.SubElement(worldbody, "geom", name="table_top", pos="0.45 0 -0.01", size="0.75 0.9 0.01",
                  rgba="0.30 0.27 0.25 1", **visual)
    half, line = task.HALF_WIDTH + 0.01, 0.003
    for axis in (0, 1):
        for sign in (-1, 1):
            position, size = [*task.CENTRE, 0.0], [half + line, half + line, 0.0006]
            position[axis] += sign * half
            size[axis] = line
            ET.SubElement(worldbody, "geom", pos=_numbers(position), size=_numbers(size), rgba="0.95 0.95 0.95 1",
                          **visual)
    right, down, _ = _camera_axes()
    ET.SubElement(worldbody, "camera", name=CAMERA, pos=_numbers(CAMERA_POSITION), fovy=str(CAMERA_FOVY),
                  xyaxes=_numbers((*right, *-down)))


def _camera_axes() -> np.ndarray:
    """(3, 3): the camera's right, down and forward in the base frame, as rows."""
    forward = np.subtract(CAMERA_TARGET, CAMERA_POSITION)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def camera_projection(height: int, width: int) -> Projection:
    """The calibration of the simulated camera, for pictures of that size."""
    focal = 0.5 / np.tan(np.radians(CAMERA_FOVY) / 2)
    intrinsics = np.array([[focal * height / width, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    axes = _camera_axes()
    return Projection.from_camera(intrinsics, axes, -axes @ CAMERA_POSITION)


def _objects(worldbody: ET.Element) -> None:
    hx, hy, hz = (2 * h for h in task.OBSTACLE_HALF_SIZE)
    inertia = [task.OBSTACLE_MASS / 12 * s for s in (hy**2 + hz**2, hx**2 + hz**2, hx**2 + hy**2)]
    solid = {"contype": str(_OBSTACLE), "conaffinity": str(_ARM | _OBSTACLE), "friction": "0.6 0.005 0.0001"}
    for i in range(task.MAX_OBSTACLES):
        body = ET.SubElement(worldbody, "body", name=f"obstacle{i}", pos=_numbers(_PARKED), gravcomp="1")
        ET.SubElement(body, "freejoint", name=f"obstacle{i}")
        ET.SubElement(body, "inertial", pos="0 0 0", mass=str(task.OBSTACLE_MASS), diaginertia=_numbers(inertia))
        _shapes(body, f"obstacle{i}", task.OBSTACLE_HALF_SIZE, (task.OBSTACLE_RADIUS, task.OBSTACLE_HALF_HEIGHT),
                GREEN, solid)
    # Fixed to the table: moved between episodes as a mocap body, it cannot fall over.
    target = ET.SubElement(worldbody, "body", name="target", mocap="true", pos=_numbers(_PARKED))
    _shapes(target, "target", task.TARGET_HALF_SIZE, (task.TARGET_RADIUS, task.TARGET_HALF_HEIGHT), RED,
            {"contype": str(_TARGET), "conaffinity": str(_ARM | _OBSTACLE)})


def _shapes(body: ET.Element, name: str, box: tuple[float, ...], cylinder: tuple[float, ...],
            colour: tuple[float, ...], contact: dict[str, str]) -> None:
    for shape, size in zip(SHAPES, (box, cylinder), strict=True):
        ET.SubElement(body, "geom", name=f"{name}_{shape}", type=shape, size=_numbers(size), rgba=_numbers(colour),
                      **contact)


class Scene:
    """The scene's objects and tool in one model and data, whoever steps them.

    model, data: MuJoCo's. `shapes` (MAX_OBSTACLES + 1,) int: per obstacle and then the target, 0 when it is
    not there, else 1 + index into `SHAPES`.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data
        names = [f"obstacle{i}" for i in range(task.MAX_OBSTACLES)] + ["target"]
        self.geoms = np.array([[model.geom(f"{n}_{s}").id for s in SHAPES] for n in names])
        self._contact_bits = (model.geom_contype[self.geoms].copy(), model.geom_conaffinity[self.geoms].copy())
        self.obstacle_bodies = np.array([model.body(n).id for n in names[:-1]])
        self.obstacle_qpos = np.array([model.joint(n).qposadr[0] for n in names[:-1]])
        self.obstacle_dofs = np.array([model.joint(n).dofadr[0] for n in names[:-1]])
        joints = [model.joint(f"{ROBOT_PREFIX}fr3_joint{i}") for i in range(1, 8)]
        self.arm_qpos = np.array([j.qposadr[0] for j in joints])
        self.arm_dofs = np.array([j.dofadr[0] for j in joints])
        self.tool_site = model.site("tool").id
        self.shapes = np.zeros(len(names), int)
        self.place(task.Layout())

    def place(self, layout: task.Layout) -> None:
        """Puts the layout on the table, at rest; everything else is parked. No physics step is taken."""
        shapes = np.zeros_like(self.shapes)
        for i in range(task.MAX_OBSTACLES):
            item = layout.obstacles[i] if i < len(layout.obstacles) else None
            address = self.obstacle_qpos[i]
            if item is None:
                self.data.qpos[address:address + 7] = [_PARKED[0], _PARKED[1] + 0.1 * i, _PARKED[2], 1, 0, 0, 0]
            else:
                shapes[i] = 1 + SHAPES.index(item.shape)
                self.data.qpos[address:address + 7] = [item.x, item.y, task.OBSTACLE_HALF_SIZE[2], *_about_z(item.yaw)]
            self.data.qvel[self.obstacle_dofs[i]:self.obstacle_dofs[i] + 6] = 0
        if layout.target is None:
            self.data.mocap_pos[0] = _PARKED
        else:
            shapes[-1] = 1 + SHAPES.index(layout.target.shape)
            self.data.mocap_pos[0] = [layout.target.x, layout.target.y, task.TARGET_HALF_HEIGHT]
            self.data.mocap_quat[0] = _about_z(layout.target.yaw)
        self.show(shapes)

    def show(self, shapes: np.ndarray) -> None:
        """Switches contacts, gravity and visibility so that exactly `shapes` exist."""
        self.shapes = np.asarray(shapes, int).copy()
        there = self.shapes[:, None] == np.arange(1, 1 + len(SHAPES))
        contype, conaffinity = self._contact_bits
        self.model.geom_contype[self.geoms] = np.where(there, contype, 0)
        self.model.geom_conaffinity[self.geoms] = np.where(there, conaffinity, 0)
        self.model.geom_rgba[self.geoms, 3] = there
        self.model.body_gravcomp[self.obstacle_bodies] = 1.0 - there[:-1].any(1)

    @property
    def tool(self) -> Pose:
        """The tool's pose in the base frame."""
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self.data.site_xmat[self.tool_site])
        return Pose(self.data.site_xpos[self.tool_site].copy(), quaternion[[1, 2, 3, 0]])


def _about_z(yaw: float) -> tuple[float, float, float, float]:
    return np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
