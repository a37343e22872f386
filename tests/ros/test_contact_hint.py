"""A person who drives hears of a contact when the arm's external force shows one."""

import time

import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from geometry_msgs.msg import WrenchStamped
from safe_policy_ros import qos
from safe_policy_ros.client import GraphClient

from data_collection.labels import ContactWatch
from tests.ros.graph import ros_domain

pytestmark = pytest.mark.ros


def test_the_newest_force_reaches_whoever_drives():
    with ros_domain() as domain, GraphClient("hint", domain) as client:
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=domain)
        node = rclpy.create_node("arm", context=context)
        arm = node.create_publisher(WrenchStamped, "/franka/external_wrench", qos.SENSOR)
        deadline = time.monotonic() + 10
        while not arm.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert client.force() is None, "nothing came yet"
        watch, told = ContactWatch(), []
        for reading in range(60):
            message = WrenchStamped()
            message.wrench.force.x, message.wrench.force.z = 1.0, -7.0 * (30 <= reading < 45)
            arm.publish(message)
            time.sleep(0.01)
            force = client.force()
            if force is not None and (strength := watch.look(force)):
                told.append((reading, strength))
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert len(told) == 1 and 30 <= told[0][0] < 45 and told[0][1] == pytest.approx(7.0, abs=0.01)
