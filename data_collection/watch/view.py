"""What every viewer does: it is shown ROS messages as the bytes that came, in the order in which they came."""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np

CAMERA = "/camera/color/image_raw"
TOOL = "/franka/current_pose"
TARGET = "/franka/target_pose"
JOINTS = "/franka/joint_states"
WRENCH = "/franka/external_wrench"
GATE = "/safety_gate/status"
LABELS = "/labels"
STEP = "/episode/step"
STATE = "/episode/state"
TOPICS = (CAMERA, TOOL, TARGET, JOINTS, WRENCH, GATE, LABELS, STEP, STATE)
"""What is watched, in a running graph and in a recording."""

GATE_STATES = ("DISARMED", "ACTIVE", "HOLD", "FAULT")
PHASES = ("IDLE", "RESETTING", "RUNNING", "ENDED")
"""Names of GateStatus.state and EpisodeState.phase."""


class View(Protocol):
    """A viewer, or a file for one."""

    def show(self, topic: str, type_name: str, data: bytes, time_ns: int) -> None:
        """data: CDR message of a topic in `TOPICS`; time_ns: when it was received, since the epoch."""
        ...

    def close(self) -> None:
        """Hands over what is left."""
        ...


def episode_metadata(text: str) -> dict[str, Any]:
    """`EpisodeState.metadata_json`; nothing where it is empty or no JSON object, which the viewer must survive."""
    try:
        content = json.loads(text or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def limits_box(metadata: dict[str, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """(low, high) corners of the gate's workspace [m, base frame] in an episode's metadata, None without them."""
    try:
        limits = metadata["limits"]
        corners = np.array([limits["workspace_low"], limits["workspace_high"]], float)
    except (KeyError, TypeError, ValueError):
        return None
    if corners.shape != (2, 3) or not np.isfinite(corners).all():
        return None
    return corners[0], corners[1]
