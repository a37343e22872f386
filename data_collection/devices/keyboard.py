"""The keys of a terminal, also over ssh: the fallback where there is no SpaceMouse."""

from __future__ import annotations

import contextlib
import os
import select
import termios
from dataclasses import dataclass

import numpy as np

from data_collection.devices.device import DeviceState, TeleopDevice, turned
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError

RELEASE = 0.2
"""[s] A terminal tells of no key that is let go, only of repeats (25 to 30 a second): without one for so long the
motion ends. Longer than the jitter of a network, shorter than the pause before the first repeat, in which the arm
stops once more."""
SLOWEST, FASTEST, STEP = 0.1, 1.0, 0.1
MOTIONS = {"w": (0, 1), "s": (0, -1), "a": (1, 1), "d": (1, -1), "r": (2, 1), "f": (2, -1), "j": (3, -1), "l": (3, 1),
           "i": (4, 1), "k": (4, -1), "u": (5, 1), "o": (5, -1), "\x1b[A": (0, 1), "\x1b[B": (0, -1),
           "\x1b[D": (1, 1), "\x1b[C": (1, -1)}
"""Key -> (axis of the twist, sign)."""
BUTTONS = {"1": 0, "2": 1, "\x1b": 2, "3": 2, " ": 3}
"""Key -> button, in the order of the teleop node's parameter `buttons`."""
HELP = ("keys, held down: w/s or up/down forward and back, a/d or left/right sideways, r/f up and down, j/l roll, "
        "i/k pitch, u/o yaw; +/- speed; 1 reward, 2 cost, Esc abort, space takes the arm and holds it")


@dataclass(frozen=True)
class KeyboardConfig:
    """operator_yaw: as in `SpaceMouseConfig` [rad]. speed: share of the largest speed while a key is held."""

    operator_yaw: float = 0.0
    speed: float = 0.5

    def __post_init__(self) -> None:
        if not SLOWEST <= self.speed <= FASTEST:
            raise ConfigurationError(f"speed: expected a number in [{SLOWEST}, {FASTEST}], got {self.speed}")


class Terminal:
    """A terminal that hands over each key as it is pressed. Restored by `close`."""

    def __init__(self, descriptor: int | None = None) -> None:
        """descriptor: of a terminal; None opens the one that this process was started in.

        Raises `DeviceUnavailableError` where there is none.
        """
        try:
            self._descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY) if descriptor is None else descriptor
            self._before = termios.tcgetattr(self._descriptor)
        except (OSError, termios.error) as error:
            raise DeviceUnavailableError(
                f"keyboard: this process has no terminal ({error.args[-1]}); start the node in a terminal of its own: "
                "`python -m robot_bringup.run teleop_node --ros-args -p device:=keyboard`") from error
        keys = termios.tcgetattr(self._descriptor)
        keys[3] &= ~(termios.ICANON | termios.ECHO)  # signals stay: Ctrl-C ends the node
        termios.tcsetattr(self._descriptor, termios.TCSANOW, keys)
        self._open = True

    def read(self) -> bytes:
        """What was typed since the last call. Raises `DeviceUnavailableError` when the terminal is gone."""
        typed = b""
        try:
            while select.select([self._descriptor], [], [], 0)[0]:
                chunk = os.read(self._descriptor, 1024)
                if not chunk:
                    raise DeviceUnavailableError("keyboard: the terminal was closed")
                typed += chunk
        except OSError as error:
            raise DeviceUnavailableError(f"keyboard: the terminal is gone ({error.strerror})") from error
        return typed

    def close(self) -> None:
        if self._open:
            self._open = False
            with contextlib.suppress(OSError, termios.error):  # the terminal may be gone
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)


class Keyboard(TeleopDevice):
    """Motion lasts while a key repeats. At most one key repeats at a time: that is how terminals are."""

    def __init__(self, terminal: Terminal, config: KeyboardConfig | None = None) -> None:
        self.config = config or KeyboardConfig()
        self._terminal = terminal
        self._speed = self.config.speed
        self._last: dict[str, float] = {}
        self._rest, self._read_at = "", float("-inf")

    def read(self, now: float) -> DeviceState:
        typed = self._terminal.read().decode(errors="ignore")
        # Keys that waited while this process did not run are no word of an operator who holds a key now.
        if now - self._read_at <= RELEASE or self._read_at == float("-inf"):
            for key in self._keys(typed):
                self._press(key, now)
        self._read_at = now
        held = [key for key, pressed in self._last.items() if now - pressed < RELEASE]
        twist, buttons = np.zeros(6), [False] * 4
        for key in held:
            if key in MOTIONS:
                axis, sign = MOTIONS[key]
                twist[axis] = sign * self._speed
            else:
                buttons[BUTTONS[key]] = True
        return DeviceState(turned(twist, self.config.operator_yaw), tuple(buttons))

    def _press(self, key: str, now: float) -> None:
        if key in ("+", "="):
            self._speed = min(FASTEST, self._speed + STEP)
        elif key in ("-", "_"):
            self._speed = max(SLOWEST, self._speed - STEP)
        elif key in MOTIONS or key in BUTTONS:
            self._last[key] = now

    def _keys(self, typed: str) -> list[str]:
        """Single keys. An escape that nothing follows until the next reading is the key of that name."""
        if not typed:
            alone, self._rest = self._rest, ""
            return [alone] if alone == "\x1b" else []
        text, self._rest, keys = self._rest + typed, "", []
        while text:
            if text[0] != "\x1b":
                keys.append(text[0].lower())
                text = text[1:]
            elif len(text) >= 3 and text[1] in "[O":
                keys.append("\x1b[" + text[2])
                text = text[3:]
            elif len(text) == 1 or (len(text) == 2 and text[1] in "[O"):
                self._rest = text
                break
            else:
                keys.append("\x1b")
                text = text[1:]
        return keys

    def close(self) -> None:
        self._terminal.close()
