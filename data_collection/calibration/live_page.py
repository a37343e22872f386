"""A local web page with the live picture, the crop and the colours. Binds 127.0.0.1 only."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_collection.calibration.colour import ColourCheck, check_colours
from data_collection.conversion.images import Crop, fit_image
from safe_policy_core.errors import SpecError, UserError

HOST = "127.0.0.1"
STREAM_PERIOD = 0.1
"""[s] Between two pictures of the page: to look at, not to measure."""
MAX_BODY = 200
_PAGE = Path(__file__).with_name("live_page.html")


class CameraCheck:
    """The newest picture, the crop, and what the policy sees of it. Used from several threads.

    picture: the newest (H, W, 3) uint8 RGB picture or None. size: height and width of the policy's pictures.
    """

    def __init__(self, picture: Callable[[], np.ndarray | None], size: tuple[int, int], crop: Crop | None,
                 reference: np.ndarray | None, tolerance: float) -> None:
        self._picture, self._size = picture, size
        self._reference, self._tolerance = reference, tolerance
        self.crop = crop

    def raw(self) -> np.ndarray | None:
        return self._picture()

    def policy(self) -> np.ndarray | None:
        """What the policy sees. Raises `SpecError` for a crop outside the picture."""
        image = self.raw()
        return None if image is None else fit_image(image, self._size, self.crop)

    def set_crop(self, crop: Crop) -> None:
        """Raises `SpecError` for a crop outside the present picture; the old one then stays."""
        image = self.raw()
        if image is not None:
            fit_image(image, self._size, crop)
        self.crop = crop

    def check(self) -> ColourCheck | None:
        image = self.policy()
        return None if image is None else check_colours(image, self._reference, self._tolerance)

    def state(self) -> dict[str, Any]:
        check = self.check()
        if check is None:
            return {"crop": self.crop, "problems": ["no picture yet"]}
        return {"crop": self.crop, **check.to_json()}


class LivePage:
    """Serves a `CameraCheck` from a thread of its own until `close`. port: 0 for any that is free."""

    def __init__(self, check: CameraCheck, port: int = 0) -> None:
        try:
            self._server = ThreadingHTTPServer((HOST, port), _handler(check))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; choose another with --port") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="live page", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._server.server_address[1]}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def _handler(check: CameraCheck) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Requests are nobody's business."""

        def do_GET(self) -> None:
            if self.path == "/":
                self._answer(_PAGE.read_bytes(), "text/html; charset=utf-8")
            elif self.path == "/state":
                self._answer(json.dumps(check.state()).encode(), "application/json")
            elif self.path in ("/stream/raw", "/stream/policy"):
                self._stream(check.raw if self.path.endswith("raw") else check.policy)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            # A page of another origin cannot send this content type without asking, and nobody answers that.
            length = int(self.headers.get("Content-Length", 0))
            if self.path != "/crop" or self.headers.get("Content-Type") != "application/json" or length > MAX_BODY:
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            try:
                top, left, height, width = (int(v) for v in json.loads(self.rfile.read(length)))
                check.set_crop((top, left, height, width))
            except (ValueError, TypeError, SpecError) as error:
                self.send_error(HTTPStatus.BAD_REQUEST, " ".join(str(error).split()))
                return
            self._answer(b"{}", "application/json")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, picture: Callable[[], np.ndarray | None]) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                while True:
                    image = picture()
                    if image is not None:
                        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + data.tobytes() + b"\r\n")
                    time.sleep(STREAM_PERIOD)
            except OSError:
                return  # the browser left

    return Handler
