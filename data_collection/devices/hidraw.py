"""Which 3D mice the kernel knows, and whether this user may read them: the difference between three errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

UDEV_RULE = "data_collection/udev/70-spacemouse.rules"
INSTALL_RULE = (f"sudo cp {UDEV_RULE} /etc/udev/rules.d/ && sudo udevadm control --reload && sudo udevadm trigger")
VENDORS = {"0000256F", "0000046D"}
"""3Dconnexion, and Logitech whose number it used before."""
MICE_OF_LOGITECH = frozenset(f"0000C6{number:02X}" for number in (3, 5, 6, 0x21, 0x23, 0x25, 0x26, 0x27, 0x28, 0x29,
                                                                  0x2B))


@dataclass(frozen=True)
class HidDevice:
    """name: as the device calls itself. node: its file below /dev."""

    name: str
    node: Path


def find_mice(sysfs: Path = Path("/sys/class/hidraw"), dev: Path = Path("/dev")) -> list[HidDevice]:
    """3D mice that the kernel has found, readable or not."""
    found = []
    for entry in sorted(sysfs.glob("hidraw*")):
        try:
            lines = (entry / "device" / "uevent").read_text().splitlines()
        except OSError:
            continue  # unplugged between the two calls
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        _, vendor, product = (values.get("HID_ID", "") + "::").upper().split(":")[:3]
        if vendor == "0000256F" or (vendor in VENDORS and product in MICE_OF_LOGITECH):
            found.append(HidDevice(values.get("HID_NAME", "3D mouse"), dev / entry.name))
    return found


def why_unavailable(mice: list[HidDevice], access: Callable[[Path, int], bool] = os.access) -> str:
    """One line: what is missing, and what to do about it. "" when a mouse can be read and written."""
    if not mice:
        return ("no SpaceMouse is plugged in (a wireless one: switch it on, plug in its receiver, or use its cable); "
                "plug it in, and once allow access to it with `" + INSTALL_RULE + "` (udev)")
    for mouse in mice:
        if access(mouse.node, os.R_OK | os.W_OK):
            return ""
    mouse = mice[0]
    if not access(mouse.node, os.F_OK):
        return (f"{mouse.name} is plugged in but {mouse.node} is not there; in a container, start it with "
                f"--device={mouse.node}")
    return (f"{mouse.name} is plugged in but this user may not read {mouse.node}; install the udev rule with "
            f"`{INSTALL_RULE}`, then plug it in again")
