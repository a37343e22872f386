"""Starts a launch file where `ros2 launch` is not installed.

    python -m robot_bringup NAME [ARGUMENT:=VALUE ...]     starts robot_bringup/launch/NAME.launch.yaml
    python -m robot_bringup NAME --help                    shows the file's arguments
    python -m robot_bringup --list                         shows the launch files

Every process's log lines carry its name. When a process marked `on_exit: shutdown` ends, all
others are stopped and its exit code is returned; Ctrl-C stops everything and returns 130.
"""

from __future__ import annotations

import os
import sys

from robot_bringup.environment import ros_environment
from robot_bringup.launch_file import LaunchError, arguments, find, launch_files, processes
from robot_bringup.runner import Runner
from robot_bringup.segments import remove_dead_segments


def main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if words else 2
    if words[0] == "--list":
        print("\n".join(launch_files()))
        return 0
    try:
        path = find(words[0])
        if {"-h", "--help"} & set(words[1:]):
            for argument in arguments(path):
                default = "required" if argument.default is None else f"default: {argument.default}"
                print(f"  {argument.name}:=  {argument.description} ({default})")
            return 0
        given = {}
        for word in words[1:]:
            name, separator, value = word.partition(":=")
            if not separator:
                raise LaunchError(f"argument {word!r}: expected NAME:=VALUE")
            given[name] = value
        started = processes(path, given, ros_environment(os.environ))
    except LaunchError as error:
        print(f"robot_bringup: {error}", file=sys.stderr)
        return 2
    remove_dead_segments()
    return Runner(started).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
