"""What the review page's server answers to requests that no browser sends for it."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safe_policy_core.data.episodes import read_episode, write_episode
from safe_policy_core.data.labels import LABELS_FILE, recording_id
from tests.core.point_env import image_episode
from tests.data_collection.review_rig import pushed, serving

SECRET = b"not for browsers"


class Server:
    """The address of a server and the files that it must not give away."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.port = folder, int(url.rstrip("/").rsplit(":", 1)[1])

    def exchange(self, request: bytes, pause: float = 0.0, whole: bool = True, end: bool = False) -> bytes:
        """Everything that comes back until the server closes, or only the first of it. end: nothing will follow."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            time.sleep(pause)
            first = connection.recv(1 << 16)
            return first + b"".join(iter(lambda: connection.recv(1 << 16), b"")) if whole else first

    def get(self, path: str, headers: str = "", pause: float = 0.0, whole: bool = True) -> bytes:
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{headers}\r\n"
        return self.exchange(request.encode("utf-8", "surrogateescape"), pause, whole)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("dataset")
    for seed in range(2):
        write_episode(folder / f"{seed}.h5", pushed(seed=seed))
    large = image_episode(40, 9)
    large.observations["image"] = np.random.default_rng(0).integers(0, 255, (41, 200, 200, 3), np.uint8)
    large.metadata["specs"]["observation"]["image"]["shape"] = [200, 200, 3]
    write_episode(folder / "2.h5", large)
    for place in (folder, folder.parent):
        (place / "secret.txt").write_bytes(SECRET)
    with serving(folder) as url:
        server = Server(folder, url)
        while not server.get(f"/picture/2/{recording_id(large)}").startswith(b"HTTP/1.1 200"):
            time.sleep(0.05)  # until it has read the files
        yield server


RECORDING = recording_id(pushed(seed=0))
PIECES = ("..", ".", "", "%2e%2e", "%2f", "\\", "secret.txt", "0.h5", "labels.jsonl", "web", "page.js", "picture", "0",
          "1", "-1", "99999999999999999999", RECORDING, "live", "etc", "passwd", "\x00", "?", "#", "\udcff", "é")
KNOWN = ("/", "/web/page.js", f"/picture/0/{RECORDING}", f"/picture/0/{RECORDING}/0")
HEADERS = ("Host: evil.example", "Host: 127.0.0.1", "Host: localhost:1", "Origin: null", "Origin: http://evil.example",
           "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Content-Length: 99999999999",
           "Transfer-Encoding: chunked", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
           "Sec-WebSocket-Key: x", "Range: bytes=0-", "X-Forwarded-Host: localhost", ": nothing", "a" * 9000)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.one_of(st.lists(st.sampled_from(PIECES), max_size=6),
                        st.sampled_from(KNOWN).map(lambda path: [path[1:]])),
       headers=st.lists(st.sampled_from(HEADERS), max_size=4))
def test_no_request_leads_to_another_file(server: Server, pieces: list[str], headers: list[str]) -> None:
    answer = server.get("/" + "/".join(pieces), "".join(f"{header}\r\n" for header in headers))
    assert SECRET not in answer and b"HDF\r\n" not in answer and b"root:" not in answer
    known = "/" + "/".join(pieces) in KNOWN
    if answer.startswith(b"HTTP/1.1 200"):
        assert known and not any(header.startswith(("Host", "Origin", "Sec-Fetch")) for header in headers)
    elif not headers and all(piece.isascii() and piece.isprintable() for piece in pieces):
        assert known is answer.startswith(b"HTTP/1.1 200") and answer.startswith(b"HTTP/1.1 4"), answer[:200]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=st.one_of(st.binary(max_size=300), st.builds(
    lambda method, path, version: b"%s %s %s\r\n\r\n" % (method, path, version),
    st.sampled_from([b"GET", b"POST", b"PUT", b"CONNECT", b"get", b"\xff"]), st.binary(max_size=40),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b""]))))
def test_what_is_no_request_gets_nothing_and_the_page_goes_on(server: Server, request: bytes) -> None:
    answer = server.exchange(request, end=True)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert server.get("/").startswith(b"HTTP/1.1 200")
    assert not (server.folder / LABELS_FILE).exists()


def test_a_slow_reader_gets_all_of_a_large_picture(server: Server) -> None:
    recording = recording_id(read_episode(server.folder / "2.h5"))
    head, content = server.get(f"/picture/2/{recording}/0", pause=1.5).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200") and len(content) > 500_000
    assert int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]) == len(content)


HANDSHAKE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


@pytest.mark.parametrize(("headers", "status"), [
    ("", b"101"), ("Origin: http://127.0.0.1:{port}\r\n", b"101"), ("Origin: http://localhost:{port}\r\n", b"101"),
    ("Origin: https://127.0.0.1:{port}\r\n", b"403"), ("Origin: http://127.0.0.1:1\r\n", b"403"),
    ("Origin: null\r\n", b"403"), ("Sec-Fetch-Site: cross-site\r\n", b"403"), ("Host: localhost:{port}\r\n", b"403")])
def test_a_window_opens_for_the_pages_own_origin_only(server: Server, headers: str, status: bytes) -> None:
    answer = server.get("/live", HANDSHAKE + headers.format(port=server.port), whole=False)
    assert answer.split(b" ")[1] == status
