"""The cable between the arm and its client, which can be pulled."""

from __future__ import annotations

import os
import subprocess
from typing import Any

SINK = "fault_sink"
"""An interface that is down: what is sent there is lost, and its sender is told nothing."""


def _run(command: list[str], **options: Any) -> None:
    """iproute2's programs are where not everybody's PATH leads."""
    subprocess.run(command, env=os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}, **options)


class Cable:
    """Loses every packet from and to `address`, TCP and UDP, on the loopback device. Needs root and iproute2.

    As a pulled cable does, and unlike a route, which would tell the sender.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def prepare(self) -> None:
        """What takes time; nothing is lost yet. Raises `subprocess.CalledProcessError` where it is not permitted."""
        _run(["ip", "link", "add", SINK, "type", "veth", "peer", "name", f"{SINK}_end"], check=True)
        _run(["tc", "qdisc", "add", "dev", "lo", "ingress"], check=True)

    def cut(self) -> None:
        rules = "".join(f"filter add dev lo parent ffff: protocol ip u32 match ip {end} {self._address}/32 "
                        f"action mirred egress redirect dev {SINK}\n" for end in ("src", "dst"))
        _run(["tc", "-batch", "-"], input=rules.encode(), check=True)

    def join(self) -> None:
        """Also after a `prepare` that failed halfway."""
        for command in (["tc", "qdisc", "del", "dev", "lo", "ingress"], ["ip", "link", "del", SINK]):
            _run(command, check=False, stderr=subprocess.DEVNULL)
