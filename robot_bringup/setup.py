"""The ROS side of this folder: colcon installs its data where `ros2 launch` looks for it.

The Python modules are installed by the checkout's own setup.cfg, so that there is one copy.
"""

from glob import glob

from setuptools import setup

NAME = "robot_bringup"

setup(
    name=NAME,
    version="0.1.0",
    description="Launch and parameter files of the safe policy stack.",
    license="Apache-2.0",
    packages=[],
    py_modules=[],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.yaml"))),
        (f"share/{NAME}/config", sorted(glob("config/*.*"))),
        (f"share/{NAME}/security", sorted(glob("security/*.*"))),
        (f"share/{NAME}/security/common", sorted(glob("security/common/*.*"))),
    ],
)
