"""The review page's server: the page, its pictures and its web sockets, on 127.0.0.1 only.

`websockets` reads the requests and answers each with one response; it is loaded in a third of the time of a framework,
which a person would wait for before the list comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import mimetypes
import re
import signal
import socket
import time
from http import HTTPStatus
from pathlib import Path

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_sockets
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from data_collection.review.dataset import ReviewDataset
from data_collection.review.guard import HEADERS, HOST, LocalOnly
from data_collection.review.page import ReviewPage
from safe_policy_core.errors import DatasetError, UserError

log = logging.getLogger(__name__)

POLL_PERIOD = 0.25
"""[s] Between two looks for what the reader, another window or another process changed."""
PATIENCE, GOODBYE = 60.0, 1.0
"""[s] For a request and for its answer; for open windows to hear that the server ends."""
PICTURES_WAIT = 1.0
"""[s] At most, for a list that is being read."""
_KEEP = {"Cache-Control": "private, max-age=86400, immutable"}
"""Addresses of pictures hold the recording's hash."""
_WEB = {"/" if path.name == "index.html" else f"/web/{path.name}": (path.read_bytes(), mimetypes.guess_type(path)[0])
        for path in (Path(__file__).parent / "web").iterdir()}
"""The page's own files and their types by address: no request ever becomes a path."""
_LIVE = "/live"
_PICTURE = re.compile(r"/picture/(?P<index>[0-9]{1,9})/(?P<recording>[0-9a-f]+)(?:/(?P<number>[0-9]{1,9}))?")
"""A sheet of an episode's frames; without its number the thumbnail."""


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
    log.info("review of %s at %s (Ctrl-C ends it)", dataset.folder, url)
    with listener:
        asyncio.run(_serve(_Server(dataset, port), listener, seconds))
    return url


async def _serve(server: _Server, listener: socket.socket, seconds: float) -> None:
    # Of what strangers send that is no request of ours it says nothing.
    errors = logging.getLogger(f"{__name__}.errors")
    errors.setLevel(logging.ERROR)
    sockets = await serve_sockets(server.live, sock=listener, process_request=server.answer, logger=errors,
                                  compression=None, server_header=None, open_timeout=PATIENCE, close_timeout=PATIENCE)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by KeyboardInterrupt: what a shell starts in the background ignores SIGINT unless it asks for it.
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds or None)
    sockets.close()
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        # Browsers keep connections without a request in store: those are not waited for.
        await asyncio.wait_for(sockets.wait_closed(), GOODBYE)


class _Server:
    """Answers requests, and converses with windows."""

    def __init__(self, dataset: ReviewDataset, port: int) -> None:
        self._dataset = dataset
        self._local = LocalOnly(port)

    async def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """What to send; None for a window, which `live` takes over."""
        if not self._local.allows(request.headers):
            return _response(HTTPStatus.FORBIDDEN, b"This page answers its own address only.")
        if request.path == _LIVE:
            return None
        if request.path in _WEB:
            content, kind = _WEB[request.path]
            return _response(HTTPStatus.OK, content, kind)
        picture = _PICTURE.fullmatch(request.path)
        if picture:
            await self._list_first()
        drawn = await asyncio.to_thread(self._draw, picture) if picture else None
        return _response(HTTPStatus.OK, drawn, "image/jpeg", _KEEP) if drawn else \
            _response(HTTPStatus.NOT_FOUND, b"There is nothing here.")

    async def _list_first(self) -> None:
        """The list is waited for, pictures are decoration: they take no processor time from its reader for a while."""
        until = time.monotonic() + PICTURES_WAIT
        while not self._dataset.listed and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def live(self, connection: ServerConnection) -> None:
        """One window, until it is closed."""
        with contextlib.suppress(ConnectionClosed):
            await _converse(connection, ReviewPage(self._dataset))

    def _draw(self, picture: re.Match[str]) -> bytes | None:
        """JPEG; None for what there is not."""
        from data_collection.review import pictures  # OpenCV is not needed for the page to come

        # Files are named by their place in the list, never by a path.
        index, number = int(picture["index"]), picture["number"]
        if index >= len(self._dataset.entries) or self._dataset.entries[index].recording != picture["recording"]:
            return None
        entry = self._dataset.entries[index]
        try:
            return (pictures.thumbnail(entry.path, entry.steps + 1) if number is None else
                    pictures.sheet(entry.path, int(number)))
        except DatasetError:
            return None


def _response(status: HTTPStatus, content: bytes, kind: str | None = "text/plain", more: dict[str, str] | None = None
              ) -> Response:
    fields = {"Content-Type": kind or "application/octet-stream", "Content-Length": str(len(content)),
              "Connection": "close", **HEADERS, **(more or {})}
    return Response(status.value, status.phrase, Headers(fields), content)


async def _converse(socket: ServerConnection, page: ReviewPage) -> None:
    """Hears what a person does and tells what it changed, until the window is closed (`ConnectionClosed`)."""
    heard = asyncio.ensure_future(socket.recv())
    found: asyncio.Future[tuple[int, list[tuple[int, int]]]] | None = None
    try:
        while True:
            # In a thread, as it reads files.
            if changes := await asyncio.to_thread(page.changes):
                await socket.send(json.dumps(changes))
            awaited: set[asyncio.Future] = {heard, found} if found else {heard}
            await asyncio.wait(awaited, timeout=POLL_PERIOD, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                message = heard.result()
                if not isinstance(message, str):  # no page of ours sends that
                    return
                heard = asyncio.ensure_future(socket.recv())
                await asyncio.to_thread(page.take, message)
            elif found is None:
                if (index := page.lacks()) is not None:
                    found = asyncio.ensure_future(asyncio.to_thread(page.find, index))
            elif found.done():
                await asyncio.to_thread(page.add, *found.result())
                found = None
    finally:
        heard.cancel()
        await asyncio.gather(heard, return_exceptions=True)
