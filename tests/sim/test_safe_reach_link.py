"""Shared-memory snapshots and the scene link, without a robot."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from sim.safe_reach import task
from sim.safe_reach.layouts import sample_layout
from sim.safe_reach.link import SceneLink, parse_address
from sim.safe_reach.link_server import LinkServer
from sim.safe_reach.server import checked_layout
from sim.safe_reach.snapshot import QPOS_SIZE, SnapshotReader, SnapshotWriter


def test_a_reader_never_sees_a_half_written_snapshot(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path / "memory")
    reader = SnapshotReader(tmp_path / "memory")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.write(steps=number, qpos=np.full(QPOS_SIZE, number), target=np.full(7, number))
            time.sleep(0)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = set()
        deadline = time.monotonic() + 20
        while len(seen) < 200 and time.monotonic() < deadline:
            snapshot = reader.read()
            assert (snapshot.qpos == snapshot.steps).all() and (snapshot.target == snapshot.steps).all()
            seen.add(snapshot.steps)
        assert len(seen) == 200
    finally:
        stop.set()
        thread.join()


def test_a_writer_that_died_while_writing_is_noticed(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path / "memory")
    writer._record["sequence"] += 1
    with pytest.raises(RobotUnavailableError, match="half written"):
        SnapshotReader(tmp_path / "memory").read()


def test_no_memory_and_foreign_memory_are_named(tmp_path: Path) -> None:
    with pytest.raises(RobotUnavailableError, match="is the server running"):
        SnapshotReader(tmp_path / "none")
    (tmp_path / "foreign").write_bytes(bytes(4096))
    with pytest.raises(RobotUnavailableError, match="another version"):
        SnapshotReader(tmp_path / "foreign")


@pytest.fixture
def echo() -> Iterator[LinkServer]:
    """A link server whose handler answers with what it was asked."""
    def handle(request: dict) -> dict:
        if request["command"] == "place":
            checked_layout(request["layout"])
        return {"asked": request}

    server = LinkServer(0, handle)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.poll()
            time.sleep(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    yield server
    stop.set()
    thread.join()
    server.close()


def ask(connection: socket.socket, data: bytes) -> dict:
    connection.sendall(data)
    return json.loads(connection.makefile("r").readline())


def test_bad_requests_are_answered_and_the_next_one_served(echo: LinkServer) -> None:
    with socket.create_connection(("127.0.0.1", echo.port), 5) as connection:
        assert "error" in ask(connection, b"not json\n")
        assert "error" in ask(connection, b'{"no": "command"}\n')
        assert "error" in ask(connection, b'[1]\n')
        assert ask(connection, b'{"command": "hello"}\n') == {"asked": {"command": "hello"}}
        connection.sendall(b'{"command": ')
        time.sleep(0.05)
        assert "asked" in ask(connection, b'"hello"}\n')


def test_a_flood_without_newline_is_cut_off_and_others_go_on(echo: LinkServer) -> None:
    with socket.create_connection(("127.0.0.1", echo.port), 5) as flood, \
            socket.create_connection(("127.0.0.1", echo.port), 5) as other:
        with pytest.raises(OSError):
            for _ in range(1000):
                flood.sendall(b"x" * 65536)
                time.sleep(0.002)
        assert "asked" in ask(other, b'{"command": "hello"}\n')


def test_a_port_in_use_is_named(echo: LinkServer) -> None:
    with pytest.raises(RobotUnavailableError, match=f"link port {echo.port}: .*--link"):
        LinkServer(echo.port, dict)


def test_layouts_survive_the_link() -> None:
    layout = sample_layout("random_layout", 3)
    assert checked_layout(json.loads(json.dumps(layout.to_json()))) == layout
    assert checked_layout(task.Layout().to_json()) == task.Layout()


@given(st.recursive(st.none() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(
                        st.sampled_from(["obstacles", "target", "shape", "x", "y", "yaw", "z"]), inner, max_size=5)))
def test_no_other_layout_is_let_in(data: object) -> None:
    """Anything but a layout in the operating area ends in an error that the link reports."""
    try:
        layout = checked_layout(data)
    except (ValueError, KeyError, TypeError):
        return
    for item in layout.obstacles:
        assert abs(item.x - task.CENTRE[0]) <= task.HALF_WIDTH


def test_addresses() -> None:
    assert parse_address("127.0.0.1:5577") == ("127.0.0.1", 5577)
    for bad in ("5577", "host:", "host:x", "host:70000"):
        with pytest.raises(ConfigurationError, match="HOST:PORT"):
            parse_address(bad)


def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RobotUnavailableError, match=r"does not answer .*sim\.safe_reach\.server"):
        SceneLink(f"127.0.0.1:{port}")
