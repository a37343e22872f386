"""Runs a command in the environment of the ROS workspace: `python -m robot_bringup.run COMMAND ...`."""

from __future__ import annotations

import os
import sys

from robot_bringup.environment import ros_environment


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit("usage: python -m robot_bringup.run COMMAND [ARGUMENT ...]\n" + (__doc__ or ""))
    os.execvpe(sys.argv[1], sys.argv[1:], ros_environment(os.environ))


if __name__ == "__main__":
    main()
