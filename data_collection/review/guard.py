"""Keeps a local page local: no other host name, no other origin, on web sockets too."""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

HOST = "127.0.0.1"
_HEADERS = {b"x-frame-options": b"DENY", b"cross-origin-resource-policy": b"same-origin",
            b"x-content-type-options": b"nosniff",
            # Vue makes functions of its templates; nothing comes from, or goes, elsewhere.
            b"content-security-policy": b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
                                        b"script-src 'self' 'unsafe-eval'"}


class LocalOnly:
    """ASGI middleware. A page of another origin can make a browser send requests to this machine; what gives them away
    is the `Host` under which they come (DNS rebinding), their `Origin`, or the browser's `Sec-Fetch-Site`."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        allowed = (headers.get("host") in self._hosts and headers.get("origin", "") in {"", *self._origins}
                   and headers.get("sec-fetch-site", "none") in ("same-origin", "none"))
        if allowed:
            await self._app(scope, receive, _marked(send))
        elif scope["type"] == "websocket":
            await WebSocketClose(reason="other origin")(scope, receive, send)
        else:
            await PlainTextResponse("This page answers its own address only.", HTTPStatus.FORBIDDEN)(
                scope, receive, send)


def _marked(send: Send) -> Send:
    async def marked(message: dict) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS.items()]
        await send(message)

    return marked  # type: ignore[return-value]
