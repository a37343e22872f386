"""Lifecycle nodes whose steps raise errors that a person can read."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from safe_policy_core.errors import UserError
from safe_policy_ros.parameters import declare


class ManagedNode(LifecycleNode):
    """A subclass writes `configure`, `activate`, `deactivate` and `cleanup`; each may raise `UserError`.

    A step that fails leaves the node where it was, with one line in the log. A node started by itself (parameter
    autostart, the default) takes the first two steps at once and ends when one fails; under the supervisor it waits.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.active = False
        self._autostart = declare(self, "autostart", True, "configure and activate at once; false under a supervisor")
        self._problem: UserError | None = None

    def start_if_told(self) -> None:
        """The last line of a subclass's constructor. Raises the `UserError` of the step that failed."""
        for step in (self.trigger_configure, self.trigger_activate) if self._autostart else ():
            if step() != TransitionCallbackReturn.SUCCESS:
                assert self._problem is not None
                raise self._problem

    def configure(self) -> None:
        """Opens what the node needs: devices, publishers."""

    def activate(self) -> None:
        """Work begins; `active` turns true afterwards."""

    def deactivate(self) -> None:
        """Work ends; `active` has turned false."""

    def cleanup(self) -> None:
        """Undoes `configure`; also called when `configure` itself failed half way."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._take(self.configure, super().on_configure, state, undo=self.cleanup)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self._take(self.activate, super().on_activate, state)
        self.active = result == TransitionCallbackReturn.SUCCESS
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._take(self.deactivate, super().on_deactivate, state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._take(self.cleanup, super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.active = False
        return self._take(self.cleanup, super().on_shutdown, state)

    def _take(self, step: Callable[[], None], then: Callable[[LifecycleState], TransitionCallbackReturn],
              state: LifecycleState, undo: Callable[[], None] | None = None) -> TransitionCallbackReturn:
        try:
            step()
        except UserError as error:
            self._problem = error
            if not self._autostart:  # otherwise the process ends with this line
                self.get_logger().error(f"{step.__name__} failed: {error}")
            if undo is not None:
                undo()
            return TransitionCallbackReturn.FAILURE
        return then(state)

    def close(self) -> None:
        """The end of the process."""
        self.active = False
        self.cleanup()
