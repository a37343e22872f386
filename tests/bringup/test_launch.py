import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robot_bringup.launch_file import LaunchError, arguments, find, launch_files, processes

PYTHON = sys.executable


def write(path: Path, text: str) -> Path:
    path = path / "x.launch.yaml"
    path.write_text(text)
    return path


def start(path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([PYTHON, "-m", "robot_bringup", str(path), *words], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"


def script(folder: Path, name: str, code: str) -> str:
    """A command line that runs `code`."""
    (folder / name).write_text(code)
    return f"{PYTHON} -u {folder / name}"


def sleeper(folder: Path) -> str:
    return script(folder, "sleeper.py", "import os, time; print('pid', os.getpid()); time.sleep(60)")


def test_shipped_files_can_be_read() -> None:
    assert {"safe_reach_sim", "safe_reach_robot"} <= launch_files().keys()
    for path in launch_files().values():
        assert all(argument.description for argument in arguments(path))


def test_arguments_variables_conditions_and_nodes(tmp_path: Path) -> None:
    (tmp_path / "lib" / "pkg").mkdir(parents=True)
    program = tmp_path / "lib" / "pkg" / "talker"
    program.touch()
    path = write(tmp_path, """
launch:
- arg: {name: speed, default: "3", description: d}
- let: {name: twice, value: "$(var speed)$(var speed)"}
- node:
    pkg: pkg
    exec: talker
    name: t
    param:
    - {name: speed, value: $(var twice)}
    - {name: box, value: [0.1, 0.2]}
    - {name: empty, value: ""}
    remap: [{from: a, to: b}]
    on_exit: shutdown
- executable: {cmd: echo $(env HOME_X none), name: e, if: "$(var speed)"}
- executable: {cmd: "false", unless: "1"}
""".replace('if: "$(var speed)"', 'if: "true"'))
    node, echo = processes(path, {"speed": "7"}, {"AMENT_PREFIX_PATH": str(tmp_path)})
    assert node.command == [str(program), "--ros-args", "-r", "__node:=t", "-r", "a:=b", "-p", "speed:=77", "-p",
                            "box:=[0.1, 0.2]", "-p", "empty:=''"]
    assert node.required
    assert echo.command == ["echo", "none"]
    assert not echo.required


@pytest.mark.parametrize(("text", "given", "names"), [
    ("launch:\n- arg: {name: robot_ip, description: where}", {}, "robot_ip"),
    ("launch:\n- arg: {name: a, default: b}", {"c": "d"}, "unknown argument c"),
    ("launch:\n- timer: {period: 1}", {}, "timer"),
    ("launch:\n- executable: {cmd: x, respawn: true}", {}, "respawn"),
    ("launch:\n- executable: {cmd: $(eval 1)}", {}, "eval"),
    ("launch:\n- executable: {cmd: $(var nope)}", {}, "nope"),
    ("launch:\n- node: {pkg: none, exec: x}", {}, "no executable x"),
    ("launch:\n- executable: {cmd: x, if: perhaps}", {}, "perhaps"),
    ("launch: [", {}, "x.launch.yaml"),
    ("nothing: []", {}, "launch"),
])
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, given: dict[str, str], names: str) -> None:
    with pytest.raises(LaunchError, match=names):
        processes(write(tmp_path, text), given, {})


def test_unknown_file_lists_the_known() -> None:
    with pytest.raises(LaunchError, match="safe_reach_sim"):
        find("nope")


def test_required_process_stops_everything_and_gives_its_exit_code(tmp_path: Path) -> None:
    dies = script(tmp_path, "dies.py", "import time; time.sleep(1); raise SystemExit(7)")
    path = write(tmp_path, f"""
launch:
- executable: {{name: sleeper, cmd: '{sleeper(tmp_path)}'}}
- executable: {{name: dies, cmd: '{dies}', on_exit: shutdown}}
""")
    run = start(path)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 7
    line = next(line for line in output.splitlines() if "pid" in line)
    assert line.startswith("[sleeper] ")
    assert not alive(int(line.split()[-1]))
    assert "dies" in output


def test_optional_process_may_end(tmp_path: Path) -> None:
    path = write(tmp_path, f"""
launch:
- executable: {{name: short, cmd: "true"}}
- executable: {{name: sleeper, cmd: '{sleeper(tmp_path)}', on_exit: shutdown}}
""")
    run = start(path)
    time.sleep(2)
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert run.returncode == 130


def test_what_an_ended_process_left_behind_is_stopped_too(tmp_path: Path) -> None:
    child = script(tmp_path, "child.py", "import os, time; print('pid', os.getpid()); time.sleep(60)")
    leaves = script(tmp_path, "leaves.py",
                    f"import subprocess, time; subprocess.Popen({child.split()!r}); time.sleep(2)")
    path = write(tmp_path, f"launch:\n- executable: {{name: leaves, cmd: '{leaves}', on_exit: shutdown}}")
    output, _ = start(path).communicate(timeout=30)
    line = next(line for line in output.splitlines() if "pid" in line)
    assert not alive(int(line.split()[-1]))


def test_nothing_survives_not_even_a_grandchild_that_ignores_signals(tmp_path: Path) -> None:
    stubborn = tmp_path / "stubborn.py"
    stubborn.write_text("""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, "-u", __file__, "child"])
print("pid", os.getpid(), flush=True)
time.sleep(60)
""")
    path = write(tmp_path, f"launch:\n- executable: {{name: s, cmd: '{PYTHON} -u {stubborn}', on_exit: shutdown}}")
    run = start(path)
    assert run.stdout is not None
    pids = [int(run.stdout.readline().split()[-1]) for _ in range(2)]
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=40)
    assert run.returncode == 143
    assert not any(alive(pid) for pid in pids)
