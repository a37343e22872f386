"""The simulated scene's camera, rendered here: the scene's own process must not wait for a picture."""

from __future__ import annotations

import logging
import math
import time

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from safe_policy_ros.cameras.camera import Calibration, Camera, Frame
from safe_policy_ros.cameras.factory import CameraConfig
from sim.safe_reach.link import DEFAULT_ADDRESS, SceneLink
from sim.safe_reach.renderer import SnapshotRenderer
from sim.safe_reach.scene import CAMERA_FOVY

log = logging.getLogger(__name__)

SIZE = (64, 64)
"""Width and height [pixels] by default: what policies see."""
MAX_SIZE = (640, 480)
"""Width and height [pixels] of the renderer's buffer."""
START_TIMEOUT = 30.0
"""[s] The launch file starts the scene and its camera together."""
LOST_AFTER = 5.0
"""[s] A scene that stands still for so long is taken for dead."""


class SimulatedCamera(Camera):
    """At most `fps` pictures a second, each of a snapshot that is newer than the last and stamped with its time."""

    noisy = False

    def __init__(self, config: CameraConfig) -> None:
        width, height = config.width or SIZE[0], config.height or SIZE[1]
        if width > MAX_SIZE[0] or height > MAX_SIZE[1]:
            raise ConfigurationError(f"parameter width, height: the simulated camera has at most {MAX_SIZE[0]} x "
                                     f"{MAX_SIZE[1]} pixels, got {width} x {height}")
        self._link = _connect(config.address or DEFAULT_ADDRESS)
        self._renderer = SnapshotRenderer(height, width)
        self._calibration = Calibration.from_vertical_view(width, height, math.radians(CAMERA_FOVY))
        self._period = 1 / config.fps
        self._next = self._moved = time.monotonic()
        self._last_ns = 0
        self._open = True

    @property
    def calibration(self) -> Calibration:
        return self._calibration

    def read(self, timeout: float) -> Frame | None:
        until = time.monotonic() + timeout
        while True:
            wait = self._next - time.monotonic()
            if wait > 0:
                time.sleep(min(wait, timeout))
            now = time.monotonic()
            if now >= self._next:
                # A late picture is not made up for by two in a row.
                self._next = max(self._next + self._period, now)
                snapshot = self._link.snapshot()
                if snapshot.monotonic_ns > self._last_ns:  # a step of the system's clock is no reason to stop
                    self._last_ns, self._moved = snapshot.monotonic_ns, now
                    return Frame(self._renderer.render(snapshot), snapshot.time_ns)
                if now - self._moved > LOST_AFTER:
                    raise RobotUnavailableError(f"simulated scene: stands still for {LOST_AFTER:g} s; restart "
                                                "python -m sim.safe_reach.server")
            if now >= until:
                return None

    def close(self) -> None:
        if self._open:
            self._open = False
            self._renderer.close()
            self._link.close()


def _connect(address: str) -> SceneLink:
    """Raises `RobotUnavailableError` after `START_TIMEOUT`."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            return SceneLink(address)
        except RobotUnavailableError:
            if time.monotonic() > deadline:
                raise
        log.info("waiting for the simulated scene at %s", address)
        time.sleep(1.0)
