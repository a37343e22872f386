"""Where pictures come from: one file per kind of camera, behind one interface."""

from safe_policy_ros.cameras.camera import Calibration, Camera, Frame
from safe_policy_ros.cameras.factory import CAMERAS, CameraConfig, open_camera

__all__ = ["CAMERAS", "Calibration", "Camera", "CameraConfig", "Frame", "open_camera"]
