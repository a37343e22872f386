"""`make guide`: runs GUIDE.md's commands as they are written there, on the simulated arm.

A block marked `sh` is run, one marked `sh terminal` goes on in the background as in a terminal of its own until a block
`sh stop` (Ctrl-C there), and one marked `sh robot` needs hardware and is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robot_bringup.environment import ROOT, ros_environment

GUIDE = Path(__file__).with_name("GUIDE.md")
OUTPUT = ROOT / "runs" / "guide"
BEFORE = ("make setup", ". .venv/bin/activate")
"""What `make guide` has done already."""
STOP_TIMEOUT = 20.0
"""[s]"""


@dataclass(frozen=True)
class Step:
    """One command of the guide. kind: "" is run, "terminal" goes on beside the others until "stop", "robot" needs
    hardware."""

    kind: str
    command: str


def steps(text: str) -> list[Step]:
    """The guide's commands in their order. Raises `ValueError` for a block of a kind that nobody runs."""
    found = []
    for kind, body in re.findall(r"^```sh[ ]*(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if kind not in ("", "terminal", "stop", "robot"):
            raise ValueError(f"GUIDE.md: a block of kind {kind!r}, expected sh, sh terminal, sh stop or sh robot")
        found += [Step(kind, line.strip()) for line in body.splitlines() if line.strip()]
    return found


@contextlib.contextmanager
def terminal(command: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in the background, stopped with its children on leaving."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, shell=True, cwd=ROOT, env=environment, stdout=output,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(STOP_TIMEOUT)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="show the commands and run none")
    arguments = parser.parse_args()
    chosen = [step for step in steps(GUIDE.read_text()) if step.command not in BEFORE]
    if arguments.list:
        print("\n".join(f"{step.kind or 'run':<9}{step.command}" for step in chosen))
        return 0
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    environment = ros_environment(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    began = time.monotonic()
    with contextlib.ExitStack() as terminals:
        for step in chosen:
            print(f"\n\033[1m$ {step.command}\033[0m" + (f"   (not run: needs the {step.kind})" if step.kind == "robot"
                                                           else ""), flush=True)
            if step.kind == "stop":
                terminals.close()
            elif step.kind == "terminal":
                terminals.enter_context(terminal(step.command, environment, OUTPUT / "graph.log"))
            elif not step.kind:
                code = subprocess.run(step.command, shell=True, cwd=ROOT, env=environment, check=False).returncode
                if code:
                    print(f"guide: the command above failed with exit code {code}; graph: {OUTPUT / 'graph.log'}")
                    return 1
    print(f"\nguide: every command ran, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
