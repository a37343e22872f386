import time
from collections.abc import Iterator

import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from rclpy.context import Context
from safe_policy_ros.spinner import ASKED_AGAIN, Spinner
from std_srvs.srv import Trigger

from safe_policy_core.errors import RobotUnavailableError
from tests.ros.graph import ros_domain


class Server:
    """Answers the first request too late, and those after it at once. `requests`: that arrived."""

    def __init__(self, context: Context) -> None:
        self.node, self.requests = rclpy.create_node("server", context=context), 0
        self.node.create_service(Trigger, "/slow", self._answer)
        self.spinner = Spinner(self.node)

    def _answer(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.requests += 1
        if self.requests == 1:
            time.sleep(1.5 * ASKED_AGAIN)
        response.message = str(self.requests)
        return response


@pytest.fixture
def context() -> Iterator[Context]:
    with ros_domain() as domain:
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        yield context
        rclpy.shutdown(context=context)


def test_a_service_is_asked_again_where_its_answer_does_not_come(context: Context) -> None:
    server, node = Server(context), rclpy.create_node("client", context=context)
    spinner = Spinner(node)
    try:
        client = node.create_client(Trigger, "/slow")
        assert client.wait_for_service(10.0)
        assert spinner.ask(client, Trigger.Request(), 5 * ASKED_AGAIN, "slow").message == "2"
        nobody = node.create_client(Trigger, "/nobody")
        with pytest.raises(RobotUnavailableError, match="nobody: no answer"):
            spinner.ask(nobody, Trigger.Request(), 0.2, "nobody")
    finally:
        spinner.close()
        server.spinner.close()
