"""`safe-policy camera` and `safe-policy calibrate`. Pictures and the arm's pose come from the running ROS graph."""

from __future__ import annotations

import importlib
import json
import logging
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tyro

from data_collection.calibration.board import Board, Intrinsics
from data_collection.calibration.hand_eye import HandEye, View, calibrate, pose_of
from data_collection.calibration.live_page import CameraCheck, LivePage
from data_collection.calibration.views import StillViews, ViewFolder, matrix_of
from safe_policy_core.errors import ConfigurationError, DatasetError

log = logging.getLogger(__name__)

START_TIMEOUT = 5.0
"""[s] Until the first picture."""
LOOK_PERIOD = 0.05
"""[s] Between two looks at the arm."""


def _graph() -> Any:
    """The running graph's camera and arm; the one place here that needs ROS."""
    return importlib.import_module("safe_policy_ros.camera_feed").CameraFeed()


@dataclass
class Camera:
    """Shows the live picture on a local page, to set the crop and to compare the colours with a reference."""

    crop: tuple[int, int, int, int] | None = None
    """Window of the raw picture: top, left, height, width [pixels]; by default the largest centred one."""

    image_size: tuple[int, int] = (64, 64)
    """Height and width of what the policy sees [pixels]."""

    reference: Path | None = None
    """Picture that the policy saw when its data was recorded (from --save); the colours are compared with it."""

    tolerance: float = 8.0
    """How far the mean of a colour may be off the reference [grey levels]."""

    save: Path | None = None
    """Where to save what the policy sees at the end, as a reference for later (PNG)."""

    port: int = 8765
    """Of the page on 127.0.0.1; 0 for any that is free."""

    seconds: float = 0.0
    """How long to show [s]; 0 until Ctrl-C."""

    def run(self) -> dict[str, Any]:
        """Returns the crop and the last check. Raises `DeviceUnavailableError` when no picture comes."""
        reference = None
        if self.reference is not None:
            picture = cv2.imread(str(self.reference))
            if picture is None:
                raise DatasetError(f"{self.reference}: missing or not a picture")
            reference = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        with closing(_graph()) as graph:
            graph.wait_for_picture(START_TIMEOUT)
            check = CameraCheck(graph.picture, self.image_size, None, reference, self.tolerance)
            if self.crop is not None:
                check.set_crop(self.crop)
            check.check()  # a reference of the wrong size is told now, not on the page
            with closing(LivePage(check, self.port)) as page:
                log.info("camera check at %s (Ctrl-C ends it)", page.url)
                _wait(self.seconds)
                result = {"url": page.url, **check.state()}
            seen = check.policy()
        if self.save is not None and seen is not None:
            cv2.imwrite(str(self.save), cv2.cvtColor(seen, cv2.COLOR_RGB2BGR))
        return result


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    try:
        while not seconds or time.monotonic() < end:
            time.sleep(0.2)
    except KeyboardInterrupt:
        log.info("ended")


@dataclass
class Calibrate:
    """Finds where the fixed camera stands (hand-eye calibration), from views of a ChArUco board that the tool holds.

    Move the arm by hand or by teleoperation; a view is taken whenever it rests at a new pose that shows the board. Turn
    the board by 20 degrees and more about different axes. Measure the squares on the print: their size sets the scale.
    """

    square: float
    """Edge of a square on the print [m]."""

    marker: float
    """Edge of a marker on the print [m]."""

    views: tyro.conf.Positional[Path]
    """Folder of the views; taken ones go there. With --solve it must hold them already."""

    columns: int = 7
    """Squares along the board."""

    rows: int = 5
    """Squares across the board."""

    count: int = 15
    """How many views to take."""

    solve: bool = False
    """Use the views that the folder holds, without camera and arm."""

    print_board: bool = False
    """Only write the board's picture to print into the folder."""

    max_error: float = 1.0
    """Largest mean reprojection error of a good calibration [pixels]."""

    out: Path | None = None
    """Where the result goes (JSON); by default calibration.json in the folder of views."""

    def run(self) -> dict[str, Any]:
        """Raises `DatasetError` for views that do not determine the camera's pose to within max_error."""
        board = Board(self.columns, self.rows, self.square, self.marker)
        if self.print_board:
            return {"board": str(self._write_board(board))}
        if self.count < 1:
            raise ConfigurationError(f"count: expected at least 1, got {self.count}")
        folder = ViewFolder.read(self.views) if self.solve else self._take(board)
        result = solve(folder, board)
        content = describe(result)
        if result.reprojection_px > self.max_error:
            raise DatasetError(f"{self.views}: reprojection error {result.reprojection_px:.2f} pixels, expected at "
                               f"most {self.max_error:g}; are square and marker as measured on the print, and "
                               "did the board slip?")
        path = self.out or self.views / "calibration.json"
        path.write_text(json.dumps(content, indent=1) + "\n")
        return {"calibration": str(path), **content}

    def _write_board(self, board: Board) -> Path:
        self.views.mkdir(parents=True, exist_ok=True)
        path = self.views / "board.png"
        cv2.imwrite(str(path), np.pad(board.picture(200), 100, constant_values=255))
        return path

    def _take(self, board: Board) -> ViewFolder:
        still = StillViews()
        with closing(_graph()) as graph:
            graph.wait_for_picture(START_TIMEOUT)
            folder = ViewFolder(self.views, Intrinsics(*graph.intrinsics(START_TIMEOUT)))
            if (self.views / "views.json").exists():
                raise DatasetError(f"{self.views}: holds views already; name another folder, or give --solve")
            while len(folder.tools) < self.count:
                time.sleep(LOOK_PERIOD)
                tool, image = graph.tool(), graph.picture()
                if tool is None or image is None or not still.worth(tool, time.monotonic()):
                    continue
                if board.detect(image, folder.camera) is None:
                    continue
                folder.add(image, tool)
                log.info("view %d of %d", still.took(tool), self.count)
        return folder


def solve(folder: ViewFolder, board: Board) -> HandEye:
    """From pictures to the camera's pose. Raises `DatasetError`."""
    views = []
    for number, (image, tool) in enumerate(zip(folder.images(), folder.tools, strict=True)):
        found = board.detect(image, folder.camera)
        if found is None:
            log.warning("view %d: the board is not seen", number)
            continue
        views.append(View(*found, matrix_of(tool)))
    return calibrate(views, board, folder.camera)


def describe(result: HandEye) -> dict[str, Any]:
    """JSON-ready, with units in the names."""
    camera = pose_of(result.camera)
    return {"camera_in_base": {"position_m": np.round(camera.position, 6).tolist(),
                               "quaternion_xyzw": np.round(camera.quaternion, 8).tolist()},
            "reprojection_px": round(result.reprojection_px, 4), "worst_view_px": round(max(result.errors_px), 4),
            "views": len(result.errors_px), "position_sigma_mm": round(1000 * result.position_sigma, 4),
            "rotation_sigma_deg": round(float(np.degrees(result.rotation_sigma)), 5)}
