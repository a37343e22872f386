"""The optional gripper of the arm's process: two services, and its state in the diagnostics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from std_srvs.srv import Trigger

from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_ros.arm.backend import Gripper
from safe_policy_ros.parameters import declare


class GripperServices:
    """/franka/gripper/{open,grasp}, only where the parameter `gripper` asks for them.

    A service answers when the motion has begun: a thread of its own waits for its end, so that the node goes on
    taking targets. How it ended is logged and in `values`.
    """

    def __init__(self, node: Node, backend: str) -> None:
        self._node = node
        self._wanted = declare(node, "gripper", False, "use the Franka hand; only with the backend franky")
        if self._wanted and backend != "franky":
            raise ConfigurationError(f"parameter gripper: expected false with the backend {backend}, got true")
        self._motion: threading.Thread | None = None
        self._services: list[Any] = []
        self.values: dict[str, float | str] = {}

    def configure(self) -> None:
        """Raises `RobotUnavailableError` when there is no hand."""
        if not self._wanted:
            return
        from safe_policy_ros.arm.gripper import FrankyGripper  # loads libfranka

        gripper = FrankyGripper(self._node.get_parameter("robot_ip").value)
        self._note(gripper, "at rest")
        self._services = [self._service("open", gripper, gripper.open), self._service("grasp", gripper, gripper.grasp)]

    def _service(self, name: str, gripper: Gripper, motion: Callable[[], None]) -> Any:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if self._motion is not None and self._motion.is_alive():
                response.success, response.message = False, "the gripper is still moving"
                return response
            self._motion = threading.Thread(target=self._run, args=(name, gripper, motion), name="gripper", daemon=True)
            self._motion.start()
            response.success, response.message = True, "begun"
            return response

        return self._node.create_service(Trigger, f"/franka/gripper/{name}", answer)

    def _run(self, name: str, gripper: Gripper, motion: Callable[[], None]) -> None:
        try:
            motion()
        except UserError as error:
            self.values = self.values | {"gripper": str(error)}
            self._node.get_logger().error(str(error))
        else:
            self._note(gripper, f"{name} done")

    def _note(self, gripper: Gripper, state: str) -> None:
        self.values = {"gripper": state, "gripper_width_m": gripper.width}
        self._node.get_logger().info(f"gripper {state}, {1000 * gripper.width:.1f} mm between the fingers")

    def cleanup(self) -> None:
        for service in self._services:
            self._node.destroy_service(service)
        self._services = []
