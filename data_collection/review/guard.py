"""Keeps a local page local: no other host name, no other origin, on web sockets too."""

from __future__ import annotations

from websockets.datastructures import Headers

HOST = "127.0.0.1"
# Vue makes functions of its templates; nothing comes from, or goes, elsewhere.
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-eval'"
HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
           "Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": _POLICY}
"""Of every answer."""


class LocalOnly:
    """A page of another origin can make a browser send requests to this machine; what gives them away is the `Host`
    under which they come (DNS rebinding), their `Origin`, or the browser's `Sec-Fetch-Site`."""

    def __init__(self, port: int) -> None:
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}

    def allows(self, headers: Headers) -> bool:
        """Whether a request comes from the page itself, or from the address bar. A header that stands twice is none."""
        hosts = headers.get_all("Host")
        return (len(hosts) == 1 and hosts[0] in self._hosts
                and {*headers.get_all("Origin")} <= self._origins
                and {*headers.get_all("Sec-Fetch-Site")} <= {"same-origin", "none"})
