"""The review page's server: the page, its pictures and its web sockets, on 127.0.0.1 only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mimetypes
import socket
import threading
from http import HTTPStatus
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from data_collection.review.dataset import ReviewDataset
from data_collection.review.guard import HOST, LocalOnly
from data_collection.review.page import ReviewPage
from safe_policy_core.errors import DatasetError, UserError

log = logging.getLogger(__name__)

POLL_PERIOD = 0.25
"""[s] Between two looks for what the reader, another window or another process changed."""
_KEEP = {"Cache-Control": "private, max-age=86400, immutable"}
"""Addresses of pictures hold the recording's hash."""
_WEB = {path.name: path.read_bytes() for path in (Path(__file__).parent / "web").iterdir()}
"""The page's own files by name: no request ever becomes a path."""


def serve(dataset: ReviewDataset, port: int, seconds: float = 0.0) -> str:
    """Serves the page until Ctrl-C, or for some seconds. Returns its address.

    Raises `UserError` when the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()  # before the address is told: a browser that comes at once waits
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}; choose another with --port") from error
    port = listener.getsockname()[1]
    url = f"http://{HOST}:{port}/"
    # wsproto loads in a third of the time of the default.
    server = uvicorn.Server(uvicorn.Config(_app(dataset, port), log_level="warning", timeout_graceful_shutdown=1,
                                           server_header=False, ws="wsproto"))
    timer = threading.Timer(seconds, lambda: setattr(server, "should_exit", True))
    timer.daemon = True
    if seconds:
        timer.start()
    log.info("review of %s at %s (Ctrl-C ends it)", dataset.folder, url)
    with contextlib.suppress(KeyboardInterrupt), listener:
        server.run(sockets=[listener])
    timer.cancel()
    return url


def _app(dataset: ReviewDataset, port: int) -> Starlette:
    async def page(_: Request) -> Response:
        return Response(_WEB["index.html"], media_type="text/html")

    async def web(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _WEB:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Response(_WEB[name], media_type=mimetypes.guess_type(name)[0])

    async def picture(request: Request) -> Response:
        # Files are named by their place in the list, never by a path.
        index, recording = request.path_params["index"], request.path_params["recording"]
        if index >= len(dataset.entries) or dataset.entries[index].recording != recording or not recording:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        try:
            drawn = await asyncio.to_thread(_draw, dataset, index, request.path_params.get("number"))
        except DatasetError as error:
            raise HTTPException(HTTPStatus.NOT_FOUND, str(error)) from error
        return Response(drawn, headers=_KEEP, media_type="image/jpeg")

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            await _converse(socket, ReviewPage(dataset))

    routes = [Route("/", page), Route("/web/{name}", web), WebSocketRoute("/live", live),
              Route("/thumbnail/{index:int}/{recording}", picture),
              Route("/sheet/{index:int}/{recording}/{number:int}", picture)]
    return Starlette(routes=routes, middleware=[Middleware(LocalOnly, port=port)])


async def _converse(socket: WebSocket, page: ReviewPage) -> None:
    """Hears what a person does and tells what it changed, until the window is closed."""
    heard = asyncio.ensure_future(socket.receive_text())
    found: asyncio.Future[tuple[int, list[tuple[int, int]]]] | None = None
    try:
        while True:
            # In a thread, as it reads files.
            if changes := await asyncio.to_thread(page.changes):
                await socket.send_text(json.dumps(changes))
            awaited: set[asyncio.Future] = {heard, found} if found else {heard}
            await asyncio.wait(awaited, timeout=POLL_PERIOD, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                try:
                    message = heard.result()
                except KeyError:  # no text: no page of ours sends that
                    return
                heard = asyncio.ensure_future(socket.receive_text())
                await asyncio.to_thread(page.take, message)
            elif found is None:
                if (index := page.lacks()) is not None:
                    found = asyncio.ensure_future(asyncio.to_thread(page.find, index))
            elif found.done():
                await asyncio.to_thread(page.add, *found.result())
                found = None
    finally:
        heard.cancel()


def _draw(dataset: ReviewDataset, index: int, number: int | None) -> bytes:
    """A sheet of frames, or without a number the thumbnail, as JPEG."""
    from data_collection.review import pictures  # OpenCV is not needed for the page to come

    entry = dataset.entries[index]
    return pictures.thumbnail(entry.path, entry.steps + 1) if number is None else pictures.sheet(entry.path, number)
