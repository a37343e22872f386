"""`make demo`: the main job on the simulated arm, as the commands that a user would type.

teleoperate -> more demonstrations -> pretrain -> fine-tune on the arm -> replay -> report.
Every stage is one `safe-policy` command against the ROS graph or the fast simulator; its result
is kept as DIR/<stage>.json, from which `safe-policy report DIR` makes the page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robot_bringup.environment import ros_environment

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "results" / "checkpoints" / "fosp_safe_reach"
TASK, UNSEEN_TASK = "original", "more_obstacles"


class Demo:
    """Runs stages and keeps what each said."""

    def __init__(self, directory: Path, ros_domain: int) -> None:
        self.directory = directory
        self.environment = ros_environment(os.environ) | {"ROS_DOMAIN_ID": str(ros_domain)}

    def stage(self, name: str, title: str, arguments: list[str]) -> dict[str, Any]:
        """One `safe-policy` command; its progress is shown, its result kept. Exits when it fails."""
        command = ["safe-policy", *arguments]
        print(f"\n\033[1m== {title}\033[0m\n$ {shlex.join(command)}", flush=True)
        start = time.monotonic()
        run = subprocess.run([sys.executable, "-m", "safe_policy_core.cli", *arguments, "--json", "--keep",
                              str(self.directory / f"{name}.json")], cwd=ROOT, env=self.environment,
                             stdout=subprocess.PIPE, text=True)
        if run.returncode:
            sys.exit(f"demo: stage {name} failed with exit code {run.returncode}; "
                     f"the graph's log is {self.directory / 'graph.log'}")
        result = json.loads(run.stdout.strip().splitlines()[-1])
        print(f"   {time.monotonic() - start:.1f} s  {summary(result)}", flush=True)
        return result

    @contextlib.contextmanager
    def graph(self, *launch_arguments: str) -> Iterator[None]:
        """The ROS graph with the simulated arm, in the background; stopped on leaving."""
        command = [sys.executable, "-m", "robot_bringup", "safe_reach_sim", *launch_arguments]
        print(f"\n\033[1m== Start the ROS graph on the simulated arm\033[0m\n$ {shlex.join(['python', *command[1:]])}"
              f"   (log: {self.directory / 'graph.log'})", flush=True)
        with (self.directory / "graph.log").open("a") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                                       start_new_session=True)
            try:
                yield
                if process.poll() is not None:
                    sys.exit(f"demo: the graph ended with exit code {process.returncode}; see {log.name}")
            finally:
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGINT)
                    try:
                        process.wait(20)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)


def summary(result: dict[str, Any]) -> str:
    """The result's plain numbers and words on one line."""
    plain = {key: value for key, value in result.items() if isinstance(value, (int, float, str, bool))}
    return ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                     for key, value in list(plain.items())[:8])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo", help="folder of the run; emptied first")
    parser.add_argument("--scratch", action="store_true", help="pretrain from random weights, not the shipped ones")
    parser.add_argument("--teleoperated", type=int, default=4, help="episodes driven by the scripted operator")
    parser.add_argument("--demonstrations", type=int, default=60, help="episodes from the fast simulator")
    parser.add_argument("--finetune", type=int, default=6, help="fine-tuning episodes on the simulated arm")
    parser.add_argument("--updates", type=int, default=15, help="gradient steps after each fine-tuning episode")
    parser.add_argument("--test-episodes", type=int, default=40, help="seeded episodes before and after")
    parser.add_argument("--ros-domain", type=int, default=int(os.environ.get("ROS_DOMAIN_ID", "42")))
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    run = Demo(out, arguments.ros_domain)
    began = time.monotonic()
    teleoperated, demonstrations, pretrained, tuned = (out / n for n in ("teleoperated", "demonstrations",
                                                                         "pretrained", "finetuned"))
    with run.graph():
        run.stage("teleoperate", "Teleoperate the arm (scripted operator, real time)",
                  ["collect", TASK, "--env", "ros", "--operator", "scripted", "--episodes",
                   str(arguments.teleoperated), "--out", str(teleoperated), "--arm"])
    run.stage("demonstrations", "More demonstrations from the fast simulator",
              ["collect", TASK, "--episodes", str(arguments.demonstrations), "--out", str(demonstrations),
               "--seed", "1"])
    start = [] if arguments.scratch else ["--init", str(SHIPPED)]
    run.stage("pretrain", "Pretrain FOSP offline",
              ["pretrain", "fosp", "--data", str(demonstrations), str(teleoperated), "--out", str(pretrained),
               "--steps", "600" if arguments.scratch else "40", *start])
    test = ["--task", UNSEEN_TASK, "--episodes", str(arguments.test_episodes), "--seed", "1000"]
    run.stage("before", f"Test the offline policy in {UNSEEN_TASK}, a scene it never saw",
              ["evaluate", str(pretrained), *test])
    with run.graph():
        result = run.stage("finetune", "Fine-tune on the simulated arm, with policy expansion",
                           ["finetune", str(pretrained), UNSEEN_TASK, "--env", "ros",
                            "--episodes", str(arguments.finetune), "--updates", str(arguments.updates),
                            "--data", str(demonstrations), str(teleoperated), "--out", str(tuned), "--arm"])
    tuned = Path(result["checkpoint"])
    run.stage("after", "Test the fine-tuned policy in the same scenes", ["evaluate", str(tuned), *test])
    run.stage("replay", "Replay a recorded episode and the new policy in the simulator",
              ["replay", str(teleoperated), "--policy", str(tuned), "--task", UNSEEN_TASK, "--episodes", "5",
               "--video", str(out / "replay.mp4")])
    run.stage("report", "Write the report", ["report", str(out)])
    print(f"\ndemo: {time.monotonic() - began:.0f} s; open {out / 'report.html'}")


if __name__ == "__main__":
    main()
