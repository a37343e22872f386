"""ROS package of the nodes. The libraries they call are installed by the checkout's own setup.cfg."""

from setuptools import find_packages, setup

NAME = "safe_policy_ros"
NODES = ("camera_node", "franka_node", "safety_gate_node", "teleop_node", "recorder_node", "policy_node",
         "fine_tuner_node", "scene_node", "supervisor_node", "playback_node")

setup(
    name=NAME,
    version="0.1.0",
    description="Nodes of the safe policy stack.",
    license="Apache-2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    entry_points={"console_scripts": [f"{node} = {NAME}.{node}:main" for node in NODES]},
)
