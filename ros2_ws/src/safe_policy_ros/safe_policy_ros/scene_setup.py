"""Who clears and arranges the table before an episode: the simulated scene, or the operator."""

from __future__ import annotations

import json
import threading
from typing import Any, Protocol

from rclpy.node import Node
from safe_policy_interfaces.srv import ResetScene
from std_srvs.srv import Trigger

from safe_policy_core.errors import ConfigurationError, RobotUnavailableError
from safe_policy_ros.spinner import Spinner, wait_for_server


class SceneSetup(Protocol):
    def clear(self, task: str, seed: int) -> dict[str, Any]:
        """Removes every object, so that the arm can move home. Returns the layout that `place` will make, {} where
        nobody knows it. Raises `RobotUnavailableError`."""
        ...

    def place(self, task: str, seed: int) -> dict[str, Any]:
        """Arranges the scene of `task` and `seed`. Returns the layout, {} where nobody knows it."""
        ...


class ServiceScene:
    """/scene/reset of scene_node."""

    def __init__(self, node: Node, spinner: Spinner, timeout: float) -> None:
        self._client = node.create_client(ResetScene, "/scene/reset")
        self._spinner, self._timeout = spinner, timeout

    def clear(self, task: str, seed: int) -> dict[str, Any]:
        return _layout(self._call(task, seed, clear=True))

    def place(self, task: str, seed: int) -> dict[str, Any]:
        return _layout(self._call(task, seed, clear=False))

    def _call(self, task: str, seed: int, clear: bool) -> ResetScene.Response:
        wait_for_server(self._client.service_is_ready, self._timeout, "service /scene/reset")
        request = ResetScene.Request(task=task, seed=seed, clear=clear)
        response = self._spinner.wait(self._client.call_async(request), self._timeout, "service /scene/reset")
        if not response.success:
            raise RobotUnavailableError(f"service /scene/reset: {response.message}")
        return response


class ManualScene:
    """A person arranges a real table and says so by calling `~/ready` of the node."""

    def __init__(self, node: Node, timeout: float) -> None:
        self._node, self._timeout = node, timeout
        self._ready, self._waiting = threading.Event(), threading.Event()
        self._service = node.create_service(Trigger, "~/ready", self._on_ready)

    def _on_ready(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._waiting.is_set()
        response.message = "" if response.success else "nothing is waiting for the table"
        self._ready.set()
        return response

    def clear(self, task: str, seed: int) -> dict[str, Any]:
        self._ask(f"clear the table: the arm moves home next; then call {self._service.srv_name}")
        return {}

    def place(self, task: str, seed: int) -> dict[str, Any]:
        self._ask(f"arrange the scene of task {task}, number {seed}; then call {self._service.srv_name}")
        return {}

    def _ask(self, request: str) -> None:
        self._ready.clear()
        self._waiting.set()
        self._node.get_logger().info(request)
        try:
            if not self._ready.wait(self._timeout):
                raise RobotUnavailableError(f"service {self._service.srv_name}: nobody called it within "
                                            f"{self._timeout:g} s after \"{request}\"")
        finally:
            self._waiting.clear()


def _layout(response: ResetScene.Response) -> dict[str, Any]:
    return json.loads(response.layout_json) if response.layout_json else {}


def make_scene(kind: str, node: Node, spinner: Spinner, service_timeout: float, manual_timeout: float) -> SceneSetup:
    """Raises `ConfigurationError` for a kind other than service and manual."""
    if kind == "service":
        return ServiceScene(node, spinner, service_timeout)
    if kind == "manual":
        return ManualScene(node, manual_timeout)
    raise ConfigurationError(f"scene: expected service or manual, got {kind!r}")
