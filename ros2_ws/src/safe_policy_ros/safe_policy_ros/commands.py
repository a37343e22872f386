"""What `safe-policy collect`, `evaluate` and `finetune` do with `--env ros`: they drive a running graph."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from safe_policy_core.statistics import clopper_pearson
from safe_policy_core.training.online import budget_spent
from safe_policy_core.training.session import EPISODES, FinetuneSession
from safe_policy_core.training.weight_check import VIOLATION_TOLERANCE
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
        rows: list[Step] = []
        with contextlib.closing(Session(client, arm)) as session:
            for index in tqdm(range(episodes), desc="teleoperate", unit="episode", disable=None):
                session.console.wait_while_paused()
                if session.console.stopped:
                    break
                row = session.episode(task, seed + index, "teleop", out, operator)
                rows.append(row)
                _log(out / "episodes.jsonl", row)
            return {"task": task, **_totals(rows), "faults": session.faults, "gate": client.gate()}


def evaluate_over_ros(checkpoint: Path | str, task: str, episodes: int, out: Path | str, seed: int = 0,
                      target_cost: float | None = None, deterministic: bool = True, cost_budget: float | None = None,
                      arm: bool = False, wait: float = WAIT) -> dict[str, Any]:
    """The policy in `checkpoint` acts on the arm; its episodes are recorded into `out`, a row each in
    `out`/episodes.jsonl.

    target_cost: for policies that take it; None: that of their training. cost_budget: cost of all episodes together at
    which the running one is ended and no other begins; the gate's own budget does the same. Returns counts, exact 95%
    intervals of success and violation, and the gate's counters. Raises as `collect_over_ros`.
    """
    out = Path(out)
    with GraphClient() as client:
        client.wait_ready(wait)
        sha256 = client.when_free(lambda: client.load(checkpoint))
        client.set_target_cost(target_cost)
        rows: list[Step] = []
        stopped = ""
        with contextlib.closing(Session(client, arm)) as session:
            for index in tqdm(range(episodes), desc="evaluate", unit="episode", disable=None):
                session.console.wait_while_paused()
                left = math.inf if cost_budget is None else cost_budget - sum(row["episode_cost"] for row in rows)
                stopped = ("the operator" if session.console.stopped else "" if left > 0 else
                           f"the cost budget: {cost_budget:g} spent") or client.cost_budget_spent()
                if stopped:
                    break
                row = session.episode(task, seed + index, "policy", out, "policy", left, deterministic)
                rows.append(row | {"checkpoint_sha256": sha256})
                _log(out / "episodes.jsonl", rows[-1])
            return {"task": task, "checkpoint": str(checkpoint), "sha256": sha256, "target_cost": target_cost,
                    **_totals(rows), **_intervals(rows), "stopped": stopped, "faults": session.faults,
                    "gate": client.gate()}


def finetune_over_ros(task: str, episodes: int, updates: int, checkpoint: Path | str, out: Path | str, seed: int = 0,
                      operator: str = "policy", data: Sequence[Path | str] = (), cost_budget: float | None = None,
                      arm: bool = False, wait: float = WAIT, session: FinetuneSession | None = None,
                      violation_tolerance: float = VIOLATION_TOLERANCE) -> dict[str, Any]:
    """Fine-tunes the policy in `checkpoint` on the arm, episode by episode.

    Each episode: the newest weights act, the recorder writes HDF5, the fine-tuner adds it and takes
    `updates` gradient steps, the new weights go to the policy. `data`: offline episodes that stay in
    the replay buffer. cost_budget: once the summed cost of the session exceeds it, the episode ends and
    the session pauses; so it does when the safety gate's own budget is spent. Episodes and checkpoints
    go to `out`, one row per episode to `out`/finetune.jsonl.
    session: one to go on with; None begins one in `out`. Returns what
    `safe_policy_core.training.online.finetune` returns, and the gate's counters.

    Raises `RobotUnavailableError` when the policy or the learner is lost; `session` then goes on later.
    """
    out = Path(out)
    session = session or FinetuneSession.begin(out, {"task": task, "seed": seed}, _absolute(checkpoint))
    with GraphClient() as client:
        client.wait_ready(wait, learning=True)
        # What the session's own weights descend from comes first, see `Approval`.
        client.when_free(lambda: client.load(checkpoint))
        client.when_free(lambda: client.configure_tuner({
            "checkpoint": _absolute(checkpoint), "data": [_absolute(path) for path in data], "out": _absolute(out),
            "seed": seed, "resume": True, "violation_tolerance": violation_tolerance,
            "episodes": [_absolute(path) for path in session.paths()] or [""]}))  # an empty list would have no type
        loop = _FinetuneLoop(client, session, updates)
        with contextlib.closing(Session(client, arm)) as runner, \
                tqdm(total=episodes, initial=session.count, desc="fine-tune", unit="episode", disable=None) as bar:
            if session.pending is not None:
                loop.learn()
            for path in session.unknown():
                session.recover(path)
                loop.learn()
            bar.update(session.count - bar.n)
            stopped = ""
            while session.count < episodes:
                runner.console.wait_while_paused()
                stopped = ("the operator" if runner.console.stopped else
                           budget_spent(session, episodes, cost_budget) or client.cost_budget_spent())
                if stopped:
                    break
                left = math.inf if cost_budget is None else cost_budget - session.spent
                row = runner.episode(task, seed + session.count, "policy", out / EPISODES, operator, left)
                session.acted(row | {"acted_sha256": loop.acting})
                loop.learn()
                bar.update()
        return {"task": task, **_totals(session.rows), "updates": session.count * updates,
                "checkpoint": session.checkpoint, "sha256": loop.acting, "stopped": stopped,
                "faults": runner.faults, "gate": client.gate()}


class _FinetuneLoop:
    """Learning from the session's pending episode. acting: SHA-256 of the weights that the policy acts with."""

    def __init__(self, client: GraphClient, session: FinetuneSession, updates: int) -> None:
        self._client, self._session, self._updates = client, session, updates
        self.acting = client.load(session.checkpoint)

    def learn(self) -> None:
        """New weights act afterwards, or the old ones when the new did not pass their check."""
        assert self._session.pending is not None
        began = time.monotonic()
        with tqdm(total=self._updates, desc="learn", unit="update", leave=False, disable=None) as bar:
            learned = self._client.learn(self._session.pending["path"], self._updates, _advance(bar))
        self.acting = self._client.load(learned["checkpoint"])
        self._session.learned(learned | {"learn_seconds": round(time.monotonic() - began, 2)}, learned["checkpoint"])


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


def _intervals(rows: list[Step]) -> dict[str, list[float]]:
    """Exact 95% intervals of the rates of success and violation; of no episode they are [0, 1]."""
    return {f"{name}_interval": [round(end, 4) for end in
                                 (clopper_pearson(sum(row[name] for row in rows), len(rows)) if rows else (0.0, 1.0))]
            for name in ("success", "violation")}


def _absolute(path: Path | str) -> str:
    return str(Path(path).resolve())


def _log(path: Path, row: Step) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
