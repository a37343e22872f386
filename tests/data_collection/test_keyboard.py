"""The keyboard through a real pseudo-terminal: what is typed there arrives as from a person's terminal or ssh."""

import os
import termios

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_collection.devices.keyboard import BUTTONS, MOTIONS, RELEASE, Keyboard, KeyboardConfig, Terminal
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError

REPEAT = 1 / 30
"""[s] Between two repeats of a key that is held."""


@pytest.fixture
def terminal():
    """(the operator's end, the program's end)."""
    ends = os.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def keyboard(terminal):
    _, program = terminal
    device = Keyboard(Terminal(program), KeyboardConfig(speed=0.5))
    yield device
    device.close()


@pytest.mark.parametrize(("key", "axis", "sign"), [(key, axis, sign) for key, (axis, sign) in MOTIONS.items()])
def test_each_key_moves_its_axis(terminal, keyboard, key, axis, sign):
    os.write(terminal[0], key.encode())
    expected = np.zeros(6)
    expected[axis] = sign * 0.5
    np.testing.assert_array_equal(keyboard.read(0.0).twist, expected)


def test_motion_lasts_while_the_key_repeats_and_no_longer(terminal, keyboard):
    now = 0.0
    for _ in range(30):
        os.write(terminal[0], b"w")
        assert keyboard.read(now).twist[0] == 0.5
        now += REPEAT
    assert keyboard.read(now - REPEAT + RELEASE - 0.01).moving
    assert not keyboard.read(now - REPEAT + RELEASE + 0.001).moving


def test_keys_that_waited_while_the_process_stood_still_move_nothing(terminal, keyboard):
    keyboard.read(0.0)
    os.write(terminal[0], b"wwww")
    assert not keyboard.read(3.0).moving
    os.write(terminal[0], b"w")
    assert keyboard.read(3.02).moving


def test_speed_is_chosen_by_keys_within_its_bounds(terminal, keyboard):
    os.write(terminal[0], b"+" * 30 + b"w")
    assert keyboard.read(0.0).twist[0] == 1.0
    os.write(terminal[0], b"-" * 30 + b"w")
    assert keyboard.read(0.01).twist[0] == pytest.approx(0.1)


def test_labels_and_takeover_are_buttons(terminal, keyboard):
    now = 0.0
    for key, button in BUTTONS.items():
        if key != "\x1b":
            os.write(terminal[0], key.encode())
            assert keyboard.read(now).buttons[button]
            assert any(keyboard.read(now + RELEASE - 0.01).buttons)
            assert not any(keyboard.read(now + RELEASE + 0.01).buttons)
            now += RELEASE + 0.02


def test_escape_alone_aborts_and_an_arrow_in_two_pieces_does_not(terminal, keyboard):
    os.write(terminal[0], b"\x1b")
    keyboard.read(0.0)
    assert keyboard.read(0.01).buttons[2]
    keyboard.read(0.15)
    os.write(terminal[0], b"\x1b")
    keyboard.read(0.30)
    os.write(terminal[0], b"[A")
    state = keyboard.read(0.31)
    assert state.twist[0] == 0.5 and not any(state.buttons)


def test_an_operator_in_front_of_the_robot_sees_it_mirrored(terminal):
    device = Keyboard(Terminal(terminal[1]), KeyboardConfig(operator_yaw=np.pi))
    os.write(terminal[0], b"w")
    np.testing.assert_allclose(device.read(0.0).twist, [-0.5, 0, 0, 0, 0, 0], atol=1e-9)
    device.close()


def test_the_terminal_is_given_back_as_it_was(terminal):
    before = termios.tcgetattr(terminal[1])
    device = Keyboard(Terminal(terminal[1]))
    during = termios.tcgetattr(terminal[1])
    assert not during[3] & termios.ICANON and not during[3] & termios.ECHO
    assert during[3] & termios.ISIG, "Ctrl-C ends the node"
    device.close()
    device.close()
    assert termios.tcgetattr(terminal[1]) == before


def test_a_closed_terminal_is_a_lost_device():
    operator, program = os.openpty()
    device = Keyboard(Terminal(program))
    device.read(0.0)
    os.close(operator)
    with pytest.raises(DeviceUnavailableError, match="terminal"):
        device.read(0.01)
    device.close()
    os.close(program)


def test_no_terminal_is_one_line_with_the_command_to_use(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(DeviceUnavailableError, match=r"device:=") as error:
        Terminal(file.fileno())
    assert "\n" not in str(error.value)


def test_speed_out_of_range_is_refused():
    with pytest.raises(ConfigurationError, match="speed"):
        KeyboardConfig(speed=2.0)


class Typed:
    """A terminal in which given pieces were typed between the readings."""

    def __init__(self, pieces):
        self._pieces = list(pieces)

    def read(self):
        return self._pieces.pop(0) if self._pieces else b""

    def close(self):
        pass


@given(pieces=st.lists(st.binary(max_size=12), max_size=10))
def test_whatever_is_typed_the_twist_is_bounded_and_ends(pieces):
    device = Keyboard(Typed(pieces))
    for k in range(len(pieces)):
        state = device.read(0.02 * k)
        assert np.abs(state.twist).max() <= 1 and len(state.buttons) == 4
    device.read(0.02 * len(pieces))
    last = device.read(0.02 * len(pieces) + RELEASE)
    assert not last.moving and not any(last.buttons)
