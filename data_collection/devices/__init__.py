"""Devices a person (or a script in a person's place) drives the arm with: one file per device."""

from data_collection.devices.device import AXES, DeviceState, TeleopDevice

__all__ = ["AXES", "DeviceState", "TeleopDevice"]
