"""An episode in Rerun: what every message looks like there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rerun as rr

from data_collection.pixels import rgb_from_bytes
from data_collection.recording import message_definition
from data_collection.watch import view
from data_collection.watch.arm_model import joint_points
from data_collection.watch.decoding import Decoder, Definitions
from data_collection.watch.rerun_layout import layout

AXES = ("x", "y", "z", "rx", "ry", "rz")
ACTIONS = {"executed": "executed_action", "requested": "requested_action", "human": "human_action"}
"""Entity below action/ -> field of Step."""
ESTIMATES = ("violation_probability", "cost_value", "value")
_GREY, _BLUE, _ORANGE, _GREEN, _RED = (150, 150, 150), (80, 150, 255), (255, 160, 60), (90, 200, 120), (235, 80, 80)
_AXIS_COLORS = (_RED, _GREEN, _BLUE, (190, 60, 130), (30, 130, 90), (60, 60, 160))
_LEVELS = {"DISARMED": "WARN", "ACTIVE": "INFO", "HOLD": "INFO", "FAULT": "ERROR"}
_JPEG_QUALITY = 92


class RerunView:
    """Shows messages in one Rerun recording, on the timelines `time` (of receipt), `episode` [s] and `step`.

    name: what the viewer calls it. definitions: of the message types.
    """

    def __init__(self, name: str, definitions: Definitions = message_definition) -> None:
        self._rec = rr.RecordingStream("safe_policy", recording_id=name)
        self._rec.send_recording_name(name)
        self._decode = Decoder(definitions)
        self._handlers: dict[str, Callable[[Any], None]] = {
            view.CAMERA: self._picture, view.TOOL: self._tool, view.TARGET: self._target, view.JOINTS: self._joints,
            view.WRENCH: self._wrench, view.GATE: self._gate, view.LABELS: self._label, view.STEP: self._step,
            view.STATE: self._state}
        self._decision: tuple[object, ...] = ()
        self._title, self._begun, self._now, self._steps = "no episode yet", 0, 0, 0
        self._phase = ""
        self._tip: list[list[float]] = []

    def connect(self, address: str) -> None:
        """address: of a viewer, rerun+http://HOST:PORT/proxy."""
        self._rec.connect_grpc(address, default_blueprint=layout())
        self._describe()

    def save(self, path: Path) -> None:
        """Everything from now on goes to a file for `rerun FILE`."""
        self._rec.save(path, default_blueprint=layout())
        self._describe()

    def show(self, topic: str, type_name: str, data: bytes, time_ns: int) -> None:
        """Raises `DatasetError` for bytes that are not of that type; topics that nobody watches are left out."""
        handle = self._handlers.get(topic)
        if handle is None:
            return
        self._now = time_ns
        self._rec.set_time("time", timestamp=np.datetime64(time_ns, "ns"))
        if self._begun:
            self._rec.set_time("episode", duration=np.timedelta64(time_ns - self._begun, "ns"))
        handle(self._decode(type_name, data))

    def close(self) -> None:
        self._rec.flush()
        self._rec.disconnect()

    def _describe(self) -> None:
        """What never changes: colours, names and axes."""
        log = self._rec.log
        log("arm", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        for name, length in (("tool", 0.05), ("target", 0.08)):
            log(f"arm/{name}", rr.TransformAxes3D(length), static=True)
        for name in ACTIONS:
            log(f"action/{name}", rr.SeriesLines(names=[f"{name} {axis}" for axis in AXES], colors=_AXIS_COLORS),
                static=True)
        for path, label, color in (("safety/violation_probability", "violation probability", _RED),
                                   ("safety/cost_value", "expected cost", _ORANGE), ("safety/value", "value", _BLUE),
                                   ("labels/reward", "reward", _GREEN), ("labels/cost", "cost", _RED),
                                   ("gate/cost_spent", "cost spent", _ORANGE), ("wrench/force", "force [N]", _GREY)):
            log(path, rr.SeriesLines(names=[label], colors=[color]), static=True)

    def _picture(self, message: Any) -> None:
        rgb = rgb_from_bytes(message.data, message.height, message.width, message.step, message.encoding)
        good, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if good:
            self._rec.log("camera", rr.EncodedImage(contents=jpeg.tobytes(), media_type="image/jpeg"))

    def _tool(self, message: Any) -> None:
        self._pose("arm/tool", message.pose)
        self._tip = [_vector(message.pose.position)]
        self._rec.log("arm/path", rr.Points3D([_vector(message.pose.position)], radii=0.002, colors=[_BLUE]))

    def _target(self, message: Any) -> None:
        self._pose("arm/target", message.pose)

    def _pose(self, path: str, pose: Any) -> None:
        q = pose.orientation
        self._rec.log(path, rr.Transform3D(translation=_vector(pose.position),
                                           quaternion=rr.Quaternion(xyzw=[q.x, q.y, q.z, q.w])))

    def _joints(self, message: Any) -> None:
        if len(message.position) >= 7:
            points = [*joint_points(np.array(message.position[:7])), *self._tip]  # the hand is a line, too
            self._rec.log("arm/links", rr.LineStrips3D([points], radii=0.02, colors=[_GREY]))

    def _wrench(self, message: Any) -> None:
        self._rec.log("wrench/force", rr.Scalars(float(np.linalg.norm(_vector(message.wrench.force)))))

    def _gate(self, message: Any) -> None:
        self._rec.log("gate/cost_spent", rr.Scalars(message.cost_spent))
        state = _name(view.GATE_STATES, message.state)
        decision = (state, message.reason, message.source, message.hold, tuple(sorted(message.limits)), message.epoch)
        if decision == self._decision:
            return
        self._decision = decision
        parts = {"because of": message.reason, "for": message.source, "held by": message.hold,
                 "limited by": ", ".join(decision[4])}
        text = " ".join([state, *(f"{word} {value}" for word, value in parts.items() if value)])
        self._rec.log("gate/decisions", rr.TextLog(text, level=_LEVELS.get(state, "INFO")))

    def _label(self, message: Any) -> None:
        if message.kind in ("reward", "cost"):
            self._rec.log(f"labels/{message.kind}", rr.Scalars(message.value))
        text = f"{message.kind} {message.value:g} from {message.source} {message.who}".rstrip()
        self._rec.log("gate/decisions", rr.TextLog(text, level="INFO"))

    def _step(self, message: Any) -> None:
        self._rec.set_time("step", sequence=message.index)
        self._steps = message.index + 1
        for name, field in ACTIONS.items():
            self._rec.log(f"action/{name}", rr.Scalars(list(getattr(message, field))))
        for name in ESTIMATES:
            if np.isfinite(value := getattr(message, name)):
                self._rec.log(f"safety/{name}", rr.Scalars(value))
        for name in ("reward", "cost"):
            self._rec.log(f"labels/{name}", rr.Scalars(getattr(message, name)))
        self._clock(message.chosen_policy and f"policy {message.chosen_policy}",
                    "the operator has the arm" if message.intervention else "")
        self._rec.reset_time()

    def _state(self, message: Any) -> None:
        phase = _name(view.PHASES, message.phase)
        if phase == "RUNNING" and (phase, message.episode_id) != (self._phase, self._title):
            self._begun, self._steps = self._now, 0
        if phase != self._phase or message.episode_id != self._title:
            self._rec.log("gate/decisions", rr.TextLog(f"episode {message.episode_id}: {phase}", level="INFO"))
        self._phase, self._title = phase, message.episode_id or "no episode"
        box = view.limits_box(view.episode_metadata(message.metadata_json))
        if box is not None:
            low, high = box
            self._rec.log("arm/limits", rr.Boxes3D(centers=[(low + high) / 2], half_sizes=[(high - low) / 2],
                                                   colors=[_GREEN]))
        self._clock()

    def _clock(self, *notes: str) -> None:
        seconds = (self._now - self._begun) * 1e-9 if self._begun else 0.0
        lines = [f"# {seconds:.1f} s", f"step {self._steps}, {self._phase or 'IDLE'}", self._title,
                 *(note for note in notes if note)]
        self._rec.log("episode/clock", rr.TextDocument("\n\n".join(lines), media_type=rr.MediaType.MARKDOWN))


def _vector(message: Any) -> list[float]:
    return [message.x, message.y, message.z]


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)
