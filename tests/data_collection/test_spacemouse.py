"""The SpaceMouse through pyspacemouse's own decoder, fed with HID reports."""

import struct

import numpy as np
import pyspacemouse
import pytest
from easyhid import HIDException
from hypothesis import given
from hypothesis import strategies as st
from pyspacemouse.config_helpers import apply_axis_convention
from pyspacemouse.device import SpaceMouseDevice

from data_collection.devices.factory import open_device
from data_collection.devices.hidraw import find_mice, why_unavailable
from data_collection.devices.spacemouse import CONVENTION, SILENCE, ZERO_REPORTS, SpaceMouse, SpaceMouseConfig
from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError

FULL = 350
"""Counts at full displacement."""
SPECS = pyspacemouse.get_device_specs()


class ReportSource:
    """The bytes that the kernel would hand over, one report a read; as a HID device without USB."""

    product_string, manufacturer_string, release_number, serial_number = "mouse", "3Dconnexion", 1, "1"

    def __init__(self, reports=()):
        self.reports = list(reports)
        self.unplugged = False
        self.closed = 0

    def open(self):
        pass

    def close(self):
        self.closed += 1

    def read(self, size):
        if self.unplugged:
            raise HIDException("Failed to read from HID device: -1")
        return self.reports.pop(0)[:size] if self.reports else bytearray()


def mouse(*reports, name="SpaceMouseCompact", **config):
    source = ReportSource(reports)
    device = SpaceMouseDevice(apply_axis_convention(SPECS[name], CONVENTION), source)
    device.open()
    return SpaceMouse(device, SpaceMouseConfig(**config)), source


def translation(x=0, y=0, z=0):
    """HID axes: x to the right, y towards the operator, z down."""
    return bytearray(struct.pack("<Bhhh", 1, x, y, z))


def rotation(x=0, y=0, z=0):
    return bytearray(struct.pack("<Bhhh", 2, x, y, z))


def buttons(mask):
    return bytearray([3, mask, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(("report", "axis", "sign"), [
    (translation(y=-FULL), 0, 1),   # pushed away: forward, +x
    (translation(x=-FULL), 1, 1),   # pushed to the left: +y
    (translation(z=-FULL), 2, 1),   # pulled up: +z
    (rotation(z=-FULL), 5, 1),      # turned counterclockwise from above: + about z
    (rotation(y=-FULL), 3, 1),      # rolled to the right, HID's -y is the forward axis: + about x
    (rotation(x=-FULL), 4, 1),      # pitched forward, HID's -x is the left axis: + about y
    (translation(y=FULL), 0, -1),
])
def test_axes_follow_the_base_frame(report, axis, sign):
    device, _ = mouse(report)
    expected = np.zeros(6)
    expected[axis] = sign
    np.testing.assert_allclose(device.read(0.0).twist, expected, atol=1e-9)


def test_an_operator_in_front_of_the_robot_sees_it_mirrored():
    device, _ = mouse(translation(y=-FULL), rotation(z=-FULL), operator_yaw=np.pi)
    np.testing.assert_allclose(device.read(0.0).twist, [-1, 0, 0, 0, 0, 1], atol=1e-9)


def test_deadband_and_scales():
    device, _ = mouse(translation(x=round(-0.05 * FULL), y=-FULL // 2), rotation(z=-FULL),
                      deadband=0.1, translation_scale=0.5, rotation_scale=0.0)
    # 0.05 is inside the deadband; 0.5 becomes (0.5 - 0.1) / 0.9, then halved; rotation is off.
    np.testing.assert_allclose(device.read(0.0).twist, [0.5 * 0.4 / 0.9, 0, 0, 0, 0, 0], atol=1e-9)


def test_axes_are_swapped_turned_round_and_left_out():
    device, _ = mouse(translation(x=-FULL, y=-FULL // 2), rotation(z=-FULL),
                      axes=("y", "-x", "z", "", "yaw", ""), deadband=0.0)
    np.testing.assert_allclose(device.read(0.0).twist, [1, -0.5, 0, 0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("axes", [("x", "y", "z"), ("x", "y", "z", "roll", "pitch", "jaw"), ("--x", *"yz", "", "", "")])
def test_axes_that_do_not_exist_are_named(axes):
    with pytest.raises(ConfigurationError, match="axes"):
        SpaceMouseConfig(axes=axes)


def stream(path, seconds, rate=62.5):
    """HID reports as a SpaceMouse sends them: translation and rotation in turns, `path(t)` [counts] (6,) at each."""
    reports = []
    for k in range(int(seconds * rate)):
        x, y, z, roll, pitch, yaw = np.round(path(k / rate)).astype(int)
        reports += [translation(x, y, z), rotation(roll, pitch, yaw)]
    return reports


def test_a_push_and_a_release_as_a_hand_makes_them():
    """Half a second forward with a trembling hand; the device then sends its zeros and falls silent."""
    rng = np.random.default_rng(0)

    def hand(t):
        push = FULL * np.sin(np.pi * t / 0.5)
        return np.array([0, -push, 0, 0, 0, 0]) + rng.normal(0, 0.02 * FULL, 6) * (push > 0)

    device, source = mouse(name="SpaceMouseCompact")
    reports = [*stream(hand, 0.5), translation(), rotation()]
    twists, now = [], 0.0
    while reports or now < 1.0:
        source.reports, reports = reports[:2], reports[2:]
        twists.append(device.read(now).twist)
        now += 1 / 62.5
    twists = np.array(twists)
    assert twists[:, 0].max() > 0.95 and (twists[:, 0] >= 0).all()
    assert np.abs(twists[:, 1:]).max() < 0.05, "the deadband swallows the trembling"
    assert not twists[-20:].any()
    assert device.health() == ""


def test_a_device_that_sends_only_zeros_is_told_with_what_to_do():
    device, source = mouse()
    for _ in range(ZERO_REPORTS):
        source.reports.append(translation())
        device.read(0.0)
    assert "spacenavd" in device.health()
    source.reports.append(translation(y=-FULL))
    device.read(0.0)
    assert device.health() == ""


def test_a_rest_after_motion_is_no_fault():
    device, source = mouse(translation(y=-FULL))
    device.read(0.0)
    source.reports += [translation()] * 2 * ZERO_REPORTS
    for _ in range(4):
        device.read(0.1)
    assert device.health() == ""


def test_a_displaced_device_that_falls_silent_counts_as_released():
    device, source = mouse(translation(y=-FULL), buttons(1))
    assert device.read(0.0).moving
    assert device.read(SILENCE - 0.01).moving
    assert not device.read(SILENCE + 0.01).moving
    assert "silent" in device.health()
    source.reports.append(translation(y=-FULL))
    assert device.read(SILENCE + 0.02).moving and device.health() == ""


def hidraw(root, number, identity, name):
    folder = root / "sys" / f"hidraw{number}" / "device"
    folder.mkdir(parents=True)
    (folder / "uevent").write_text(f"DRIVER=hid-generic\nHID_ID={identity}\nHID_NAME={name}\nHID_PHYS=usb-1\n")


def test_a_missing_mouse_a_forbidden_one_and_a_missing_node_are_told_apart(tmp_path):
    hidraw(tmp_path, 0, "0003:00001D6B:00000104", "a keyboard")
    hidraw(tmp_path, 1, "0003:0000046D:0000C52B", "a Logitech mouse receiver")
    sysfs, dev = tmp_path / "sys", tmp_path / "dev"
    assert find_mice(sysfs, dev) == []
    assert "plug it in" in why_unavailable([]) and "70-spacemouse.rules" in why_unavailable([])
    hidraw(tmp_path, 2, "0003:0000256F:0000C635", "3Dconnexion SpaceMouse Compact")
    hidraw(tmp_path, 3, "0003:0000046D:0000C626", "3Dconnexion SpaceNavigator")
    mice = find_mice(sysfs, dev)
    assert [(mouse.name, mouse.node.name) for mouse in mice] == [
        ("3Dconnexion SpaceMouse Compact", "hidraw2"), ("3Dconnexion SpaceNavigator", "hidraw3")]
    assert "container" in why_unavailable(mice)
    dev.mkdir()
    for mouse in mice:
        mouse.node.touch()
    assert why_unavailable(mice) == ""
    forbidden = why_unavailable(mice, access=lambda path, mode: mode == 0)
    assert "may not read" in forbidden and "udevadm" in forbidden and str(mice[0].node) in forbidden


def test_a_resting_device_is_all_zero():
    device, _ = mouse(translation(), rotation())
    state = device.read(0.0)
    assert not state.moving
    assert not any(state.buttons)


def test_every_waiting_report_is_taken():
    device, source = mouse(*[translation(y=-10 * k) for k in range(1, 31)], buttons(1), translation(y=-FULL))
    state = device.read(0.0)
    assert not source.reports
    assert state.twist[0] == 1
    assert state.buttons[0] and not state.buttons[1]


def test_a_flood_of_reports_does_not_block():
    device, source = mouse(*[translation(y=-FULL)] * 500)
    device.read(0.0)
    assert 0 < len(source.reports) < 500


def test_buttons_are_released():
    device, source = mouse(buttons(2))
    assert device.read(0.0).buttons[1]
    source.reports.append(buttons(0))
    assert not any(device.read(0.01).buttons)


@given(name=st.sampled_from(sorted(SPECS)), reports=st.lists(st.binary(min_size=13, max_size=13), max_size=8),
       yaw=st.floats(-3.2, 3.2))
def test_any_report_of_any_device_stays_in_bounds(name, reports, yaw):
    # The HID library hands over a full buffer whatever came, so reports have the length that was asked for.
    device, _ = mouse(*map(bytearray, reports), name=name, operator_yaw=yaw)
    state = device.read(0.0)
    assert np.isfinite(state.twist).all() and np.abs(state.twist).max() <= 1
    assert len(state.buttons) == len(SPECS[name].button_specs)


def test_unplugging_is_told_with_what_to_do():
    device, source = mouse(translation(y=-FULL))
    device.read(0.0)
    source.unplugged = True
    with pytest.raises(DeviceUnavailableError, match="plug it in"):
        device.read(0.01)
    device.close()
    device.close()
    assert source.closed == 1


def test_no_device_is_one_line_that_names_the_udev_rule(capsys):
    with pytest.raises(DeviceUnavailableError) as error:
        open_device("spacemouse")
    message = str(error.value)
    assert "\n" not in message
    assert "udev" in message and "70-spacemouse.rules" in message
    assert capsys.readouterr().out == ""


def test_the_udev_rule_covers_every_device_that_is_decoded(request):
    rule = (request.config.rootpath / "data_collection/udev/70-spacemouse.rules").read_text()
    for spec in SPECS.values():
        vendor, product = f"{spec.vendor_id:04x}", f"{spec.product_id:04x}"
        lines = [line for line in rule.splitlines() if f'ATTRS{{idVendor}}=="{vendor}"' in line]
        assert lines, spec.name
        assert any("idProduct" not in line or product in line for line in lines), spec.name


@pytest.mark.parametrize("options", [{"deadband": 1.0}, {"translation_scale": -0.1}, {"rotation_scale": float("nan")}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        SpaceMouseConfig(**options)


def test_unknown_device_names_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"joystick.*spacemouse, keyboard, scripted, none"):
        open_device("joystick")
