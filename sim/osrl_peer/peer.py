"""A worker process of OSRL: training there, acting in an environment here."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.cli import PROCESS_ENVIRONMENT
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import RobotEnv

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".tools" / "osrl" / "bin" / "python"
WORKER = Path(__file__).with_name("worker.py")
METHODS = ("cdt", "bc_safe", "cpq", "bcq_lag", "bear_lag", "coptidice")


@dataclass(frozen=True)
class Job:
    """What a worker does. return_range: lowest and highest return in the file. horizon: steps of an episode.

    target_return: what CDT is conditioned on. equal_networks: as many critics as this project has. units,
    target_rate: of the value-based methods, by default OSRL's.
    """

    method: str
    file: str
    steps: int
    batch: int
    cost_limit: float
    horizon: int
    return_range: tuple[float, float]
    target_return: float
    episodes: int = 0
    seed: int = 0
    threads: int = 2
    equal_networks: bool = False
    units: int = 256
    target_rate: float = 0.005


@dataclass(frozen=True)
class Outcome:
    """step_time: median of a training step [ms]. returns, costs: of each episode."""

    step_time: float
    returns: list[float]
    costs: list[float]


def run(job: Job, env: RobotEnv | None = None, first_seed: int = 0) -> Outcome:
    """Trains, then plays `job.episodes` in `env`, whose resets have `first_seed` and the following ones.

    Raises `ConfigurationError` when OSRL is not installed, and when its process ends before the job is done.
    """
    if not PYTHON.is_file():
        raise ConfigurationError(f"{PYTHON}: missing; run sim/osrl_peer/setup.sh once")
    environment = PROCESS_ENVIRONMENT | dict(os.environ) | {"OMP_NUM_THREADS": str(job.threads)}
    returns: list[float] = []
    costs: list[float] = []
    with subprocess.Popen([PYTHON, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            _send(process.stdin, asdict(job))
            for line in process.stdout:
                request = _request(line, job.method)
                if "done" in request:
                    return Outcome(request["done"], returns, costs)
                assert env is not None
                if "reset" in request:
                    observation, _ = env.reset(first_seed + len(returns))
                    returns.append(0.0)
                    costs.append(0.0)
                    _send(process.stdin, {"observation": _vector(observation)})
                else:
                    action = np.clip(np.array(request["action"], np.float32), -1, 1)
                    observation, reward, cost, terminated, truncated, _ = env.step(action)
                    returns[-1] += reward
                    costs[-1] += cost
                    _send(process.stdin, {"observation": _vector(observation), "reward": reward, "cost": cost,
                                          "terminated": terminated, "truncated": truncated})
        except BrokenPipeError:
            pass  # it ended while it was being answered
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    raise ConfigurationError(f"{job.method}: OSRL's process ended with code {process.returncode}; its error is above")


def _request(line: str, method: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ConfigurationError(f"{method}: expected a JSON object from OSRL's process, got {line.strip()!r}"
                                 ) from error


def _send(pipe: Any, message: dict[str, Any]) -> None:
    pipe.write(json.dumps(message) + "\n")
    pipe.flush()


def _vector(observation: dict[str, np.ndarray]) -> list[float]:
    (vector,) = observation.values()
    return vector.tolist()
