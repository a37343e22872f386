"""`safe-policy preflight`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from robot_bringup.preflight import equipment, files, machine, network
from robot_bringup.preflight.check import RED, SKIPPED, Check, perform, table

CONFIG = Path(__file__).resolve().parent.parent / "config"


@dataclass
class Preflight:
    """Everything that must be right before a real arm moves; red lines say what to do. Exit code 1 with a red one."""

    robot_ip: tyro.conf.Positional[str]
    """Address of the robot's control box, for instance 172.16.0.2."""

    checkpoint: Path | None = None
    """Policy that is to act; needs a passing simulation replay of exactly its weights."""

    task: str = "original"
    """Task that the replay must have passed."""

    limits: Path = CONFIG / "safety_gate.yaml"
    """Parameter file of the safety gate."""

    directory: Path = Path("runs/recordings")
    """Where episodes will be recorded."""

    episodes: int = 100
    """How many episodes the disk must hold."""

    camera_rate: float = 30.0
    """Pictures a second that the camera should send."""

    seconds: float = 5.0
    """How long camera and SpaceMouse are watched."""

    skip: tuple[str, ...] = ()
    """Checks to leave out, by name: versions kernel network camera spacemouse limits disk clock replay."""

    def run(self) -> dict[str, Any]:
        """Checks one after the other. `_text` is the table, `_exit_code` 1 when something is red."""
        checks = []
        for name, look in self._checks().items():
            _tell(f"{name} ...")
            checks.append(Check(name, SKIPPED, "left out with --skip") if name in self.skip else perform(name, look))
        unknown = sorted(set(self.skip) - self._checks().keys())
        if unknown:
            checks.append(Check("skip", RED, f"unknown {', '.join(unknown)}",
                                f"expected some of {', '.join(self._checks())}"))
        ready = not any(check.status == RED for check in checks)
        return {"ready": ready, "robot_ip": self.robot_ip, "checkpoint": str(self.checkpoint or ""),
                "skipped": [check.name for check in checks if check.status == SKIPPED],
                "checks": [check.to_json() for check in checks], "_exit_code": 0 if ready else 1,
                "_text": table(checks, sys.stdout.isatty())}

    def _checks(self) -> dict[str, Callable[[], Check]]:
        return {
            "versions": self._versions,
            "kernel": machine.realtime_kernel,
            "network": lambda: network.jitter(self.robot_ip, network.round_trips(self.robot_ip)),
            "camera": lambda: equipment.camera(equipment.camera_times(self.seconds), self.camera_rate),
            "spacemouse": lambda: equipment.spacemouse(self.seconds, _tell),
            "limits": lambda: files.limits(self.limits),
            "disk": lambda: machine.disk_space(self.directory, self.episodes),
            "clock": lambda: machine.clock(machine.kernel_clock()),
            "replay": self._replay}

    def _versions(self) -> Check:
        speaks = network.library_version()
        try:
            answer: tuple[int, int] | OSError = network.robot_version(self.robot_ip, speaks)
        except OSError as error:
            answer = error
        return network.versions(speaks, answer, self.robot_ip)

    def _replay(self) -> Check:
        if self.checkpoint is None:
            return Check("simulation replay", RED, "no checkpoint named",
                         "add --checkpoint FOLDER, or --skip replay for a session without a policy")
        return files.replay(self.checkpoint, self.task)


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
