"""The review page's server: pictures and the page itself, on 127.0.0.1 only."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus

import uvicorn
from fastapi import FastAPI, HTTPException, Response
from nicegui import ui

from data_collection.review import pictures
from data_collection.review.dataset import ReviewDataset
from data_collection.review.guard import HOST, LocalOnly
from data_collection.review.page import ReviewPage
from safe_policy_core.errors import DatasetError, UserError

log = logging.getLogger(__name__)

_KEEP = {"Cache-Control": "private, max-age=86400, immutable"}
"""Addresses of pictures hold the recording's hash."""


def serve(dataset: ReviewDataset, port: int, seconds: float = 0.0) -> str:
    """Serves the page until Ctrl-C, or for some seconds. Returns its address. Once a process.

    Raises `UserError` when the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}; choose another with --port") from error
    port = listener.getsockname()[1]
    url = f"http://{HOST}:{port}/"
    server = uvicorn.Server(uvicorn.Config(_app(dataset, port), log_level="warning", timeout_graceful_shutdown=1,
                                           server_header=False))
    timer = threading.Timer(seconds, lambda: setattr(server, "should_exit", True))
    timer.daemon = True
    if seconds:
        timer.start()
    log.info("review of %s at %s (Ctrl-C ends it)", dataset.folder, url)
    with contextlib.suppress(KeyboardInterrupt), listener:
        server.run(sockets=[listener])
    timer.cancel()
    return url


def _app(dataset: ReviewDataset, port: int) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LocalOnly, port=port)

    def picture(index: int, recording: str, make: Callable[[], bytes]) -> Response:
        # Files are named by their place in the list, never by a path.
        if not 0 <= index < len(dataset.entries) or dataset.entries[index].recording != recording:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        try:
            return Response(make(), media_type="image/jpeg", headers=_KEEP)
        except DatasetError as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error

    @app.get("/thumbnail/{index}/{recording}")
    def thumbnail(index: int, recording: str) -> Response:
        entry = dataset.entries[index] if 0 <= index < len(dataset.entries) else None
        return picture(index, recording, lambda: pictures.thumbnail(entry.path, entry.steps + 1))  # type: ignore[union-attr]

    @app.get("/sheet/{index}/{recording}/{number}")
    def sheet(index: int, recording: str, number: int) -> Response:
        return picture(index, recording, lambda: pictures.sheet(dataset.entries[index].path, max(0, number)))

    @ui.page("/", title=f"Review · {dataset.folder.name}", dark=True)
    def page() -> None:
        ReviewPage(dataset)

    ui.run_with(app, tailwind=False, show_welcome_message=False)
    return app
