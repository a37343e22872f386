"""What `safe-policy collect` and `finetune` do with `--env ros`: they drive a running graph."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from safe_policy_ros.client import GraphClient
from safe_policy_ros.session import Session

Step = dict[str, Any]
WAIT = 120.0
"""[s] For the graph's nodes: they may just have been started, and load slowly where cores are few."""


def collect_over_ros(task: str, episodes: int, out: Path | str, seed: int = 0, operator: str = "scripted",
                     arm: bool = False, wait: float = WAIT) -> dict[str, Any]:
    """Teleoperated episodes, recorded into `out`. `operator` drives the gate's teleoperation channel.

    Returns files, episodes (one row each), success and violation counts, and the gate's counters.
    Raises `RobotUnavailableError` naming what of the graph is missing, `GraphError` for an episode
    that could not run; what was recorded before stays.
    """
    out = Path(out)
    with GraphClient() as client:
        client.wait_ready(wait)
        session, rows = Session(client, arm), []
        for index in tqdm(range(episodes), desc="teleoperate", unit="episode", disable=None):
            row = session.episode(task, seed + index, "teleop", out, operator)
            rows.append(row)
            _log(out / "episodes.jsonl", row)
        return {"task": task, **_totals(rows), "faults": session.faults, "gate": client.gate()}


def finetune_over_ros(task: str, episodes: int, updates: int, checkpoint: Path | str, out: Path | str, seed: int = 0,
                      operator: str = "policy", data: Sequence[Path | str] = (), cost_budget: float | None = None,
                      arm: bool = False, wait: float = WAIT) -> dict[str, Any]:
    """Fine-tunes the policy in `checkpoint` on the arm, episode by episode.

    Each episode: the newest weights act, the recorder writes HDF5, the fine-tuner adds it and takes
    `updates` gradient steps, the new weights go to the policy. `data`: offline episodes that stay in
    the replay buffer. cost_budget: stop once the summed cost of the session exceeds it. Episodes and
    checkpoints go to `out`, one row per episode to `out`/finetune.jsonl. Returns what
    `safe_policy_core.training.online.finetune` returns, and the gate's counters.
    """
    out = Path(out)
    spent, rows, stopped = 0.0, [], ""
    with GraphClient() as client:
        client.wait_ready(wait, learning=True)
        client.configure_tuner({"checkpoint": _absolute(checkpoint), "data": [_absolute(path) for path in data],
                                "out": _absolute(out), "seed": seed})
        newest = _absolute(checkpoint)
        sha256 = client.load(newest)
        session = Session(client, arm)
        for index in tqdm(range(episodes), desc="fine-tune", unit="episode", disable=None):
            row = session.episode(task, seed + index, "policy", out / "episodes", operator)
            spent += row["episode_cost"]
            began = time.monotonic()
            with tqdm(total=updates, desc="learn", unit="update", leave=False, disable=None) as bar:
                learned = client.learn(row["path"], updates, _advance(bar))
            newest = learned["checkpoint"]
            row |= {**learned, "acted_sha256": sha256, "cost_so_far": spent,
                    "learn_seconds": round(time.monotonic() - began, 2)}
            sha256 = client.load(newest)
            rows.append(row)
            _log(out / "finetune.jsonl", row)
            if cost_budget is not None and spent > cost_budget:
                stopped = (f"cost budget: {spent:g} of {cost_budget:g} spent after {len(rows)} of {episodes} "
                           "episodes")
                break
        return {"task": task, **_totals(rows), "updates": len(rows) * updates, "checkpoint": newest,
                "sha256": sha256, "stopped": stopped, "faults": session.faults, "gate": client.gate()}


def _advance(bar: Any) -> Callable[[Step], None]:
    def hear(feedback: Step) -> None:
        bar.update(max(0, feedback["update"] - bar.n))

    return hear


def _totals(rows: list[Step]) -> dict[str, Any]:
    cost, steps = sum(row["episode_cost"] for row in rows), sum(row["steps"] for row in rows)
    return {"files": [row["path"] for row in rows], "episodes": rows, "count": len(rows),
            "successes": sum(row["success"] for row in rows), "violations": sum(row["violation"] for row in rows),
            "steps": steps, "total_cost": cost, "cost_regret": cost / max(1, steps),  # FOSP D.2
            "reward": sum(row["episode_return"] for row in rows) / max(1, len(rows))}


def _absolute(path: Path | str) -> str:
    return str(Path(path).resolve())


def _log(path: Path, row: Step) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
