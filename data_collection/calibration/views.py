"""Views of the board on disk, and when to take one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from data_collection.calibration.board import Intrinsics
from safe_policy_core.errors import DatasetError
from safe_policy_core.geometry import Pose, inverse, multiply, rotation_vector_from_quaternion

INDEX = "views.json"
STILL_TIME = 0.5
"""[s] The arm must have been at rest for so long: picture and pose then belong together whatever their delays."""
STILL_DISTANCE, STILL_TURN = 0.0005, 0.002
"""[m], [rad] Less than this is rest."""
NEW_DISTANCE, NEW_TURN = 0.03, 0.15
"""[m], [rad] A view must differ from all before by one of these."""


def matrix_of(pose: Pose) -> np.ndarray:
    """(4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(rotation_vector_from_quaternion(pose.quaternion))[0]
    matrix[:3, 3] = pose.position
    return matrix


def apart(a: Pose, b: Pose) -> tuple[float, float]:
    """Distance [m] and turn [rad]."""
    turn = rotation_vector_from_quaternion(multiply(a.quaternion, inverse(b.quaternion)))
    return float(np.linalg.norm(a.position - b.position)), float(np.linalg.norm(turn))


class StillViews:
    """Says when the arm rests at a pose that is worth a picture."""

    def __init__(self) -> None:
        self._resting: Pose | None = None
        self._since = 0.0
        self._taken: list[Pose] = []

    def worth(self, tool: Pose, now: float) -> bool:
        """tool: measured at `now` [s, steady]. True at most until `took` is called."""
        if self._resting is None or not _within(apart(tool, self._resting), STILL_DISTANCE, STILL_TURN):
            self._resting, self._since = tool, now
            return False
        return now - self._since >= STILL_TIME and not any(_within(apart(tool, other), NEW_DISTANCE, NEW_TURN)
                                                           for other in self._taken)

    def took(self, tool: Pose) -> int:
        """Number of views so far."""
        self._taken.append(tool)
        return len(self._taken)


def _within(difference: tuple[float, float], distance: float, turn: float) -> bool:
    return difference[0] < distance and difference[1] < turn


@dataclass
class ViewFolder:
    """Pictures NNN.png and an index with the tool's pose of each, and with the camera's model."""

    path: Path
    camera: Intrinsics
    tools: list[Pose] = field(default_factory=list)

    def add(self, image: np.ndarray, tool: Pose) -> None:
        """image (H, W, 3) uint8 RGB."""
        self.path.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(self._picture(len(self.tools))), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.tools.append(tool)
        tools = [{"position": t.position.tolist(), "quaternion": t.quaternion.tolist()} for t in self.tools]
        content = {"camera": {"matrix": self.camera.matrix.tolist(), "distortion": self.camera.distortion.tolist()},
                   "tools": tools}
        (self.path / INDEX).write_text(json.dumps(content, indent=1))

    def _picture(self, number: int) -> Path:
        return self.path / f"{number:03d}.png"

    def images(self) -> list[np.ndarray]:
        """(H, W, 3) uint8 RGB each. Raises `DatasetError` naming a picture that is missing."""
        images = []
        for number in range(len(self.tools)):
            image = cv2.imread(str(self._picture(number)))
            if image is None:
                raise DatasetError(f"{self._picture(number)}: missing or not a picture")
            images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return images

    @classmethod
    def read(cls, path: Path) -> ViewFolder:
        """Raises `DatasetError` naming the file and field."""
        index = path / INDEX
        try:
            content = json.loads(index.read_text())
            camera = Intrinsics(np.array(content["camera"]["matrix"], float),
                                np.array(content["camera"]["distortion"], float))
            tools = [Pose(np.array(tool["position"], float), np.array(tool["quaternion"], float))
                     for tool in content["tools"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{index}: expected camera and tools of a calibration, got {error!r}") from error
        return cls(path, camera, tools)
