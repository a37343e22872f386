"""The limits that the running gate enforces, for the record."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

from safe_policy_core.errors import RobotUnavailableError
from safe_policy_core.safety.motion import MotionLimits
from safe_policy_ros.spinner import Spinner, wait_for_server

SERVICE = "/safety_gate/get_parameters"


class GateLimits:
    """Asks the gate once; its limits are read-only while it runs."""

    def __init__(self, node: Node, spinner: Spinner, timeout: float) -> None:
        self._client = node.create_client(GetParameters, SERVICE)
        self._spinner, self._timeout = spinner, timeout
        self._limits: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        """The fields of `MotionLimits` by name. Raises `RobotUnavailableError` when the gate does not tell them."""
        if self._limits is None:
            names = [field.name for field in fields(MotionLimits)]
            wait_for_server(self._client.service_is_ready, self._timeout, f"service {SERVICE}")
            answer = self._spinner.ask(self._client, GetParameters.Request(names=names), self._timeout,
                                       f"service {SERVICE}")
            if len(answer.values) != len(names):
                raise RobotUnavailableError(f"service {SERVICE}: expected {', '.join(names)}, got "
                                            f"{len(answer.values)} of them")
            self._limits = {name: _plain(parameter_value_to_python(value))
                            for name, value in zip(names, answer.values, strict=True)}
        return self._limits


def _plain(value: Any) -> Any:
    return [float(item) for item in value] if hasattr(value, "__len__") else value
