"""Devices by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data_collection.devices.device import NoDevice, TeleopDevice
from data_collection.devices.keyboard import Keyboard, KeyboardConfig, Terminal
from data_collection.devices.scripted import ScriptedOperator
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError


def _spacemouse(**options: Any) -> TeleopDevice:
    # Imported when asked for: without the HID library the import itself fails, and other devices must not care.
    try:
        from data_collection.devices.spacemouse import SpaceMouse, SpaceMouseConfig
    except (OSError, TypeError) as error:
        raise DeviceUnavailableError(f"SpaceMouse: the HID library does not load ({error}); "
                                     "install it with `sudo apt install libhidapi-hidraw0`") from error
    return SpaceMouse.open(SpaceMouseConfig(**options))


def _keyboard(operator_yaw: float = 0.0, **_: Any) -> TeleopDevice:
    return Keyboard(Terminal(), KeyboardConfig(operator_yaw))


DEVICES: dict[str, Callable[..., TeleopDevice]] = {
    "spacemouse": _spacemouse, "keyboard": _keyboard, "scripted": lambda **_: ScriptedOperator(),
    "none": lambda **_: NoDevice()}


def open_device(name: str, **options: Any) -> TeleopDevice:
    """Opens the device of that name. `options` are the fields of `SpaceMouseConfig`; each takes what it knows.

    Raises `ConfigurationError` for an unknown name and `DeviceUnavailableError` when it cannot be opened.
    """
    if name not in DEVICES:
        raise ConfigurationError(f"device: unknown {name!r}, expected one of {', '.join(DEVICES)}")
    return DEVICES[name](**options)
