"""The line to the arm: round trips, and whether libfranka and the robot speak the same version."""

from __future__ import annotations

import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

from robot_bringup.preflight.check import Check, green, red

PINGS, PING_INTERVAL, PING_SIZE = 300, 0.005, 1200
"""Number, [s], [bytes]: a state of the robot is about so large."""
SLOWEST = 0.5e-3
"""[s] For 99% of the round trips: libfranka has 1 ms for the way there, its computing and the way back."""
PORT = 1337
_HEADER, _CONNECT, _ANSWER = struct.Struct("<III"), struct.Struct("<HH"), struct.Struct("<HH")
SUCCESS, INCOMPATIBLE = 0, 1


def round_trips(address: str, count: int = PINGS, interval: float = PING_INTERVAL, size: int = PING_SIZE,
                timeout: float = 0.2) -> list[float | None]:
    """ICMP echo times [s], None for each that was lost. Raises `PermissionError` where this user may not ping."""
    try:
        channel, raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP), False
    except PermissionError:
        channel, raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), True
    times: list[float | None] = []
    with channel:
        channel.connect((address, 0))
        for sequence in range(1, count + 1):
            begin = time.perf_counter()
            channel.send(_echo(os.getpid() & 0xFFFF, sequence, size))
            times.append(_await_echo(channel, raw, sequence, begin, timeout))
            time.sleep(interval)
    return times


def _echo(identifier: int, sequence: int, size: int) -> bytes:
    body = bytes(size)
    head = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence)
    total = sum(struct.unpack(f"!{(len(head) + size) // 2}H", head + body))
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, identifier, sequence) + body


def _await_echo(channel: socket.socket, raw: bool, sequence: int, begin: float, timeout: float) -> float | None:
    while (left := begin + timeout - time.perf_counter()) > 0:
        channel.settimeout(left)
        try:
            packet = channel.recv(65536)
        except TimeoutError:
            break
        now = time.perf_counter()
        packet = packet[(packet[0] & 0xF) * 4:] if raw else packet
        kind, _, _, _, number = struct.unpack("!BBHHH", packet[:8])
        if kind == 0 and number == sequence:  # on the same machine one's own requests come by, too
            return now - begin
    return None


def jitter(address: str, times: Sequence[float | None]) -> Check:
    """times: of `round_trips`."""
    name = "network to the arm"
    came = sorted(value for value in times if value is not None)
    lost = len(times) - len(came)
    if not came:
        return red(name, f"{address} answers no ping", "check the cable, the address and this computer's own "
                   "(172.16.0.1/24 on the port that the control box is plugged into)")
    slow = came[min(len(came) - 1, int(0.99 * len(came)))]
    found = (f"{len(times)} pings of {PING_SIZE} bytes: median {statistics.median(came) * 1e3:.2f} ms, 99% within "
             f"{slow * 1e3:.2f} ms, {lost} lost")
    if lost or slow > SLOWEST:
        return red(name, f"{found}; expected 99% within {SLOWEST * 1e3:g} ms and none lost",
                   "connect the control box directly to this computer's network card (no switch, no USB adapter), "
                   "switch off power saving (`cpupower frequency-set -g performance`)")
    return green(name, found)


def robot_version(address: str, speaks: int, timeout: float = 3.0) -> tuple[int, int]:
    """(status, version) that the robot's server answers to a client that speaks version `speaks`.

    The first message of libfranka's protocol; the connection is closed after the answer, nothing is commanded.
    Raises `OSError`, `TimeoutError` when another client has the robot.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as states, \
            socket.create_connection((address, PORT), timeout) as channel:
        states.bind(("", 0))
        channel.settimeout(timeout)
        size = _HEADER.size + _CONNECT.size
        channel.sendall(_HEADER.pack(0, 1, size) + _CONNECT.pack(speaks, states.getsockname()[1]))
        _, _, length = _HEADER.unpack(_receive(channel, _HEADER.size))
        status, version = _ANSWER.unpack(_receive(channel, length - _HEADER.size)[:_ANSWER.size])
        return status, version


def library_version(timeout: float = 60.0) -> int:
    """The version that franky's libfranka speaks: asked of itself, in a process of its own, by playing the robot."""
    run = subprocess.run([sys.executable, "-m", "robot_bringup.preflight.spoken_version"], capture_output=True,
                         text=True, timeout=timeout, check=False)
    if run.returncode:
        raise OSError(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "no answer")
    return int(run.stdout)


def versions(speaks: int, answer: tuple[int, int] | OSError, address: str) -> Check:
    """speaks: of `library_version`. answer: of `robot_version`, or why there is none."""
    name = "libfranka and robot"
    if isinstance(answer, TimeoutError):
        return red(name, f"{address}:{PORT} takes the connection and says nothing",
                   "stop the program that has the robot (franka_node?), then check again")
    if isinstance(answer, OSError):
        return red(name, f"{address}:{PORT}: {answer.strerror or answer}",
                   "switch the robot on, unlock its joints and activate FCI in Desk")
    status, version = answer
    if status != SUCCESS or version != speaks:
        return red(name, f"the robot's server speaks version {version}, franky's libfranka {speaks}",
                   "install the franky-control whose libfranka fits the robot's system version "
                   "(compatibility table of libfranka), or update the robot")
    return green(name, f"both speak version {version}")


def _receive(channel: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = channel.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError("the robot closed the connection")
        data += chunk
    return data
