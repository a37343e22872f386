"""`python -m robot_bringup.preflight.spoken_version`: the protocol version of franky's libfranka, on standard output.

It is compiled in and not told by the bindings. So this process plays a robot whose version does not fit, lets
the library connect, and reads what it says of itself.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading

ADDRESS, PORT = "127.0.0.91", 1337
"""A loopback address of its own: a simulated robot may have the usual one."""
HEADER = struct.Struct("<III")


def listen(server: socket.socket, said: list[int]) -> None:
    """Takes one connection, notes the version, refuses it."""
    channel, _ = server.accept()
    with channel:
        channel.settimeout(10)
        command, number, size = HEADER.unpack(channel.recv(HEADER.size, socket.MSG_WAITALL))
        body = channel.recv(size - HEADER.size, socket.MSG_WAITALL)
        said.append(struct.unpack("<H", body[:2])[0])
        channel.sendall(HEADER.pack(command, number, HEADER.size + 8) + struct.pack("<HH4x", 1, 0))


def main() -> None:
    import franky

    said: list[int] = []
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ADDRESS, PORT))
        server.listen(1)
        server.settimeout(10)
        thread = threading.Thread(target=listen, args=(server, said), daemon=True)
        thread.start()
        with contextlib.suppress(franky.Exception):  # it must fail: the version does not fit
            franky.Robot(ADDRESS, realtime_config=franky.RealtimeConfig.Ignore)
        thread.join(10)
    if not said:
        sys.exit("libfranka did not connect to the stand-in for a robot")
    sys.stdout.write(f"{said[0]}\n")


if __name__ == "__main__":
    main()
