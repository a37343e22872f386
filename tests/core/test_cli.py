import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from safe_policy_core.cli import COMMANDS, PROCESS_ENVIRONMENT, run
from safe_policy_core.data.episodes import write_episode
from tests.core.point_env import image_episode
from tests.ros.learning_rig import noise_episode


def safe_policy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "safe_policy_core.cli", *arguments], capture_output=True, text=True,
                          timeout=120)


def test_help_names_every_command_without_heavy_imports() -> None:
    code = ("import sys; from safe_policy_core.cli import usage; text = usage(); "
            "assert not {'torch', 'mujoco', 'rclpy'} & sys.modules.keys(), 'heavy import'; print(text)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        run(command, ["--help"])
    assert not leaving.value.code
    assert "--" in capsys.readouterr().out


def test_a_result_is_kept_for_the_report(tmp_path: Path) -> None:
    write_episode(tmp_path / "0.h5", noise_episode(0))
    kept = tmp_path / "stages" / "check.json"
    done = safe_policy("dataset", "info", str(tmp_path), "--keep", str(kept), "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(kept.read_text())
    assert content["result"] == json.loads(done.stdout.strip().splitlines()[-1])
    assert content["command"] == f"safe-policy dataset info {tmp_path}" and content["seconds"] > 0
    assert "--keep: expected a file" in safe_policy("dataset", "info", str(tmp_path), "--keep").stderr


@pytest.mark.parametrize(("arguments", "names"), [
    (["nope"], "nope"),
    (["evaluate", "/does/not/exist", "--task", "original"], "/does/not/exist"),
    (["collect", "no_such_task", "--out", "/tmp/never"], "no_such_task"),
    (["pretrain", "fosp", "--data", "/does/not/exist", "--out", "/tmp/never"], "/does/not/exist"),
    (["replay", "/does/not/exist.hdf5"], "/does/not/exist.hdf5"),
    (["report", "/does/not/exist"], "/does/not/exist"),
    (["dataset", "info", "/no/\x1b[31m"], r"/no/\x1b[31m"),
    (["pretrain", "fosp", "--set", "units=8", "--out", "/tmp/never", "--set=layers=1"], "--set: given twice"),
])
def test_bad_input_ends_with_one_line_that_names_it(arguments: list[str], names: str) -> None:
    done = safe_policy(*arguments, "--json")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("safe-policy: ")
    assert names in last
    assert names in json.loads(done.stdout.strip().splitlines()[-1])["error"]


def test_wrong_arguments_are_json_too() -> None:
    done = safe_policy("evaluate", "somewhere", "--epsiodes", "3", "--json")
    assert done.returncode == 2
    assert "epsiodes" in done.stderr
    assert "wrong arguments" in json.loads(done.stdout.strip().splitlines()[-1])["error"]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    write_episode(tmp_path / "0.h5", image_episode(4))
    command = [sys.executable, "-m", "safe_policy_core.cli", "dataset", "check", str(tmp_path), "--json"]
    done = subprocess.run(f"{shlex.join(command)} | true; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
                          stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr


def test_the_process_restarts_itself_once_with_the_allocator_pinned() -> None:
    """glibc reads the variables only at the start of a process."""
    code = ("import os, sys; sys.argv = ['safe-policy', '--help']; from safe_policy_core import cli; "
            "seen = []; cli.os.execve = lambda path, words, environment: (seen.append(environment), sys.exit(7)); "
            "cli._restart_with(cli.PROCESS_ENVIRONMENT)")
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert subprocess.run([sys.executable, "-c", code], env=bare, timeout=60).returncode == 7
    assert subprocess.run([sys.executable, "-c", code], env=bare | PROCESS_ENVIRONMENT, timeout=60).returncode == 0
