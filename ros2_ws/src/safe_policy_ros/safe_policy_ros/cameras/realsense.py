"""Intel RealSense through librealsense, live or from a recording; both go through the same pipeline.

rclpy must be imported before pyrealsense2 (which carries a DDS of its own): in the other order the
process dies with a segmentation fault when it ends. The import below keeps that order.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import rclpy  # noqa: F401 - must come before pyrealsense2

import pyrealsense2 as rs  # isort: skip

from safe_policy_core.errors import ConfigurationError, DeviceUnavailableError
from safe_policy_ros.cameras.camera import Calibration, Camera, EndOfRecording, Frame
from safe_policy_ros.cameras.device_clock import DeviceClock
from safe_policy_ros.cameras.factory import CameraConfig

log = logging.getLogger(__name__)

SIZE = (640, 480)
"""Width and height [pixels] by default: what every RealSense offers at 30 pictures a second."""
LOST_AFTER = 1.0
"""[s] A camera that sends nothing for so long is taken for unplugged."""
COLOUR_EXPOSURE_UNIT = 100
"""[us] of the exposure of D400 colour sensors, whose range then ends at 10000; other sensors take microseconds."""
COLOUR_EXPOSURE_MAX = 10000
_HOST_CLOCKS = (rs.timestamp_domain.global_time, rs.timestamp_domain.system_time)


class RealSenseCamera(Camera):
    """The colour stream. Raises `DeviceUnavailableError` when it does not start."""

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._what = f"RealSense file {config.file}" if config.file else f"RealSense {config.serial or 'camera'}"
        if config.file and not Path(config.file).is_file():
            raise DeviceUnavailableError(f"{self._what}: no such file; give a .db3 recorded with rs.recorder or the "
                                         "RealSense Viewer")
        if not config.file:
            self._check_connected(config.serial)
        self._pipeline = rs.pipeline()
        try:
            self._profile = self._pipeline.start(self._settings())
        except RuntimeError as error:
            advice = "record it again" if config.file else "plug it into a USB 3 port, or check serial, size and fps"
            raise DeviceUnavailableError(f"{self._what}: {str(error).strip()}; {advice}") from error
        self._playback = rs.playback(self._profile.get_device()) if config.file else None
        if self._playback is None:
            try:
                self._set_options()
            except ConfigurationError:
                self._pipeline.stop()
                raise
        else:
            self._playback.pause()  # until somebody reads: a short file would be over before
        self._resting = self._playback is not None
        self._calibration = self._read_calibration()
        self._clock = DeviceClock()
        self._last = time.monotonic()
        self._open = True

    def _check_connected(self, serial: str) -> None:
        """The pipeline would wait a quarter of a minute for a device to appear."""
        connected = [device.get_info(rs.camera_info.serial_number) for device in rs.context().query_devices()]
        if not connected or (serial and serial not in connected):
            raise DeviceUnavailableError(f"{self._what}: not connected (found: {', '.join(connected) or 'none'}); "
                                         "plug it into a USB 3 port, or check the parameter serial")

    def _settings(self) -> rs.config:
        config, settings = self._config, rs.config()
        if config.file:
            settings.enable_device_from_file(config.file, repeat_playback=config.repeat)
            settings.enable_stream(rs.stream.color)
            return settings
        if config.serial:
            settings.enable_device(config.serial)
        settings.enable_stream(rs.stream.color, config.width or SIZE[0], config.height or SIZE[1], rs.format.rgb8,
                               round(config.fps))
        return settings

    def _set_options(self) -> None:
        sensor = self._profile.get_device().first_color_sensor()
        if sensor.supports(rs.option.global_time_enabled):
            # Capture times in the host's clock, from the device's own counter.
            sensor.set_option(rs.option.global_time_enabled, 1)
        unit = 1
        if sensor.supports(rs.option.exposure) and (
                sensor.get_option_range(rs.option.exposure).max <= COLOUR_EXPOSURE_MAX):
            unit = COLOUR_EXPOSURE_UNIT
        self._set_or_automatic(sensor, rs.option.exposure, rs.option.enable_auto_exposure,
                               self._config.exposure / unit)
        self._set_or_automatic(sensor, rs.option.white_balance, rs.option.enable_auto_white_balance,
                               self._config.white_balance)

    def _set_or_automatic(self, sensor: rs.sensor, option: rs.option, automatic: rs.option, value: float) -> None:
        """value: 0 for automatic. What the device then has is read back."""
        if not value:
            if sensor.supports(automatic):
                sensor.set_option(automatic, 1)
            return
        if not sensor.supports(option):
            raise ConfigurationError(f"{self._what}: parameter {option.name}: this device cannot set it; leave it at 0")
        span = sensor.get_option_range(option)
        if not span.min <= value <= span.max:
            raise ConfigurationError(f"{self._what}: parameter {option.name}: expected {span.min:g} to {span.max:g} in "
                                     f"the device's unit, got {value:g}")
        if sensor.supports(automatic):
            sensor.set_option(automatic, 0)
        sensor.set_option(option, value)
        if abs(sensor.get_option(option) - value) > max(span.step, 0.05 * value):
            raise ConfigurationError(f"{self._what}: parameter {option.name}: asked for {value:g}, the device took "
                                     f"{sensor.get_option(option):g}")

    def _read_calibration(self) -> Calibration:
        found = self._profile.get_stream(rs.stream.color).as_video_stream_profile().get_intrinsics()
        k1, k2, p1, p2, k3 = (float(value) for value in found.coeffs[:5])
        return Calibration(found.width, found.height, found.fx, found.fy, found.ppx, found.ppy, (k1, k2, p1, p2, k3))

    @property
    def calibration(self) -> Calibration:
        return self._calibration

    def read(self, timeout: float) -> Frame | None:
        if self._playback is not None and self._resting:
            self._resting, self._last = False, time.monotonic()
            self._playback.resume()
        arrived, frames = self._pipeline.try_wait_for_frames(max(1, round(timeout * 1000)))
        now_ns, now = time.time_ns(), time.monotonic()
        colour = frames.get_color_frame() if arrived else None
        if not colour:
            if self._playback is not None and self._playback.current_status() == rs.playback_status.stopped:
                raise EndOfRecording(self._config.file)
            if now - self._last > LOST_AFTER:
                raise DeviceUnavailableError(f"{self._what}: no picture for {now - self._last:.1f} s; check its cable")
            return None
        self._last = now
        return Frame(self._rgb(colour), self._capture_time(colour, now_ns), colour.get_frame_number())

    def _rgb(self, colour: rs.video_frame) -> np.ndarray:
        pixels = np.asanyarray(colour.get_data())
        if colour.get_profile().format() == rs.format.bgr8:
            pixels = pixels[..., ::-1]
        # The frame's memory goes back to librealsense: a copy outlives it.
        return np.array(pixels, np.uint8)

    def _capture_time(self, colour: rs.video_frame, arrival_ns: int) -> int:
        """The device's time of capture in the host's clock; a recording is captured when it is played."""
        device_ns = round(colour.get_timestamp() * 1e6)
        if self._playback is None and colour.get_frame_timestamp_domain() in _HOST_CLOCKS:
            return min(device_ns, arrival_ns)
        return self._clock.to_host(device_ns, arrival_ns)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pipeline.stop()
