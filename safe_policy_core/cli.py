"""The command line `safe-policy`. Each subcommand is a dataclass with `run() -> dict`, imported when asked for."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safe_policy_core.errors import UserError, printable

COMMANDS = {
    "collect": ("sim.commands:Collect", "record episodes: demonstrations in the simulator, or over the ROS graph"),
    "review": ("data_collection.review.command:Review", "look at episodes on a local page and correct their labels"),
    "convert": ("data_collection.commands:Convert", "make training files (HDF5) from raw logs (MCAP)"),
    "dataset": ("data_collection.dataset.commands:Dataset", "check, plot, merge, split, filter, relabel, mix episodes"),
    "pretrain": ("safe_policy_core.commands:Pretrain", "train a method offline on recorded episodes"),
    "dspo": ("safe_policy_core.methods.dspo.commands:Dspo", "one stage of DSPO, or how good its discriminator is"),
    "score": ("safe_policy_core.methods.dspo.commands:Score", "how safe a discriminator finds recorded episodes"),
    "finetune": ("safe_policy_core.commands:Finetune", "go on training online, in the simulator or on the arm"),
    "evaluate": ("safe_policy_core.commands:Evaluate", "success, violations and cost of a policy, with 95% intervals"),
    "peer": ("sim.online_peer.command:Peer", "train PPO-Lagrangian or CPO online, by omnisafe, to compare with"),
    "replay": ("sim.commands:Replay", "run recorded episodes or a policy again in the simulator, with a video"),
    "preflight": ("robot_bringup.preflight.command:Preflight", "what must be right before a real arm moves"),
    "camera": ("data_collection.calibration.commands:Camera", "the live picture on a local page: crop and colours"),
    "calibrate": ("data_collection.calibration.commands:Calibrate", "where the camera stands, with a ChArUco board"),
    "watch": ("data_collection.watch.commands:Watch", "the running graph or recordings in Rerun or Foxglove"),
    "report": ("data_collection.report.page:Report", "one HTML page of a run's results"),
}

# glibc gives large buffers back to the system at every training step; keeping them makes a step on
# the CPU up to 2.3 times faster (32 MiB is the largest mmap threshold that glibc accepts). MuJoCo
# renders without a screen through EGL. OpenMP threads wait awake for a quarter of a millisecond, then sleep:
# without end, beside a real-time process on the same cores, a training step took 30 times as long; asleep at once, 2 to
# 3 times.
PROCESS_ENVIRONMENT = {"MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_MMAP_THRESHOLD_": "33554432",
                       "MUJOCO_GL": "egl", "GOMP_SPINCOUNT": "10000"}
STARTED_ONCE = ("review",)
"""Commands that neither train nor simulate: starting again for those variables would only take time."""


def usage() -> str:
    lines = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    return ("usage: safe-policy COMMAND [OPTIONS] [--json] [--keep FILE]\n\n"
            f"{lines}\n\n"
            "`safe-policy COMMAND --help` explains a command. With --json the last line of the output is one\n"
            "JSON object with the result. With --keep it is written to FILE as well, from which `safe-policy report`\n"
            "makes its page.\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one subcommand. Exit codes: 0, 1 for a preflight with a red line, 2 for an error that a person can mend,
    130 when interrupted."""
    if arguments is None:
        arguments = sys.argv[1:]
        if not set(arguments[:1]) & set(STARTED_ONCE):
            _restart_with(PROCESS_ENVIRONMENT)
    words = list(arguments)
    as_json = "--json" in words
    words, kept = without_keep([word for word in words if word != "--json"])
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        sys.exit(0 if words else 2)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    began = time.monotonic()
    try:
        result = run(words[0], words[1:])
        if kept is not None:
            _keep(kept, words, time.monotonic() - began, result)
    except UserError as error:
        _fail(str(error), as_json, error.exit_code)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("safe_policy_core", "sim", "data_collection"):
            raise
        _fail(f"{words[0]} needs the package {error.name}, which is not installed here; run `make setup`", as_json, 2)
    except KeyboardInterrupt:
        _fail("interrupted", as_json, 130)
    except SystemExit as leaving:
        # tyro has said on stderr which argument is wrong; a program that reads the JSON must learn of it too.
        if as_json and leaving.code:
            message = f"{words[0]}: wrong arguments, see `safe-policy {words[0]} --help`"
            print(json.dumps({"error": message}), flush=True)
        raise
    # A command whose result is for a person to read says so, and whether it failed.
    text, code = result.pop("_text", ""), result.pop("_exit_code", 0)
    try:
        print(json.dumps(result) if as_json else text or json.dumps(result, indent=1), flush=True)
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if code:
        sys.exit(code)


def run(command: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Parses and runs one subcommand. Raises `UserError` for an unknown one, and for an option that is given twice."""
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}; expected one of {', '.join(COMMANDS)}")
    options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    if twice := [option for option in options if options.count(option) > 1]:
        # The parser would take the last one and say nothing: a training under other settings than it was told.
        raise UserError(f"{twice[0]}: given twice; give all its values after one of them")
    module, name = COMMANDS[command][0].split(":")
    import tyro

    cls = getattr(importlib.import_module(module), name)
    return tyro.cli(cls, args=list(arguments), prog=f"safe-policy {command}").run()


def without_keep(words: list[str]) -> tuple[list[str], Path | None]:
    """The words without `--keep FILE`, and the file."""
    if "--keep" not in words:
        return words, None
    index = words.index("--keep")
    if index + 1 == len(words):
        _fail("--keep: expected a file for the result", False, 2)
    return words[:index] + words[index + 2:], Path(words[index + 1])


def _keep(path: Path, words: Sequence[str], seconds: float, result: dict[str, Any]) -> None:
    content = {"title": COMMANDS[words[0]][1], "command": shlex.join(["safe-policy", *words]), "seconds": seconds,
               "result": {name: value for name, value in result.items() if not name.startswith("_")}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))
    except OSError as error:
        raise UserError(f"--keep {path}: {error.strerror}") from error


def _fail(message: str, as_json: bool, code: int) -> None:
    # File names are in it, and those may hold what makes a terminal do things.
    line = printable(" ".join(message.split()))
    sys.stderr.write(f"safe-policy: {line}\n")
    if as_json:
        print(json.dumps({"error": line}), flush=True)
    sys.exit(code)


def _restart_with(environment: dict[str, str]) -> None:
    """Starts this program once more with variables that only count when set before a process starts."""
    missing = {name: value for name, value in environment.items() if name not in os.environ}
    if any(name.startswith(("MALLOC_", "OMP_")) for name in missing):
        os.execve(sys.executable, [sys.executable, "-m", "safe_policy_core.cli", *sys.argv[1:]],
                  dict(os.environ) | missing)
    os.environ.update(missing)


if __name__ == "__main__":
    main()
