"""Which return a sequence model asks for: found on layouts that no test sees.

QPT's authors report "the configuration with the highest normalized reward" among the safe ones and, where none is, the
one of least cost (section 5.1). Here that choice has layouts of its own, and what is chosen is the one number that can
be changed without training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import returns_within
from safe_policy_core.evaluation import rollout
from safe_policy_core.interfaces import Policy, RobotEnv
from safe_policy_core.targets import set_target_cost

QUANTILES = (1.0, 0.95, 0.85, 0.7)
"""Of the returns of affordable episodes, from the most that can be asked for downwards."""
FIRST_TEST_SEED = 10_000
"""Tests have seeds from here on where something was chosen on the layouts from 0 on."""


@dataclass(frozen=True)
class Trial:
    """What asking for `target_return` brought: means over `episodes`, fewer than wanted where the limit was passed."""

    quantile: float
    target_return: float
    reward: float
    cost: float
    cost_error: float
    """Standard error of `cost`."""
    episodes: int

    def safe(self, limit: float) -> bool:
        """Whether the cost is within the limit by one standard error: a mean just below it is as often above it."""
        return self.cost + self.cost_error <= limit


def ask_safely(policy: Policy, env: RobotEnv, dataset: DsrlDataset, limit: float, seeds: Sequence[int], record: Path
               ) -> Trial:
    """Makes `policy`, a `TakesTargets`, ask for the highest return that is safe, or else the one of least cost.

    limit: mean cost of an episode. record: JSON of all trials; where it is there already, of the same limit and seeds,
    they are not run again.
    """
    affordable = np.array([max(limit, float(dataset.cost_returns.min()))])
    trials = _recorded(record, limit, seeds)
    if not trials:
        for quantile in QUANTILES:
            asked = float(returns_within(dataset, affordable, quantile)[0])
            trials.append(_trial(policy, env, quantile, asked, limit, seeds))
            if trials[-1].safe(limit):
                break
        found = {**_asked_of(limit, seeds), "trials": [asdict(trial) for trial in trials]}
        record.write_text(json.dumps(found, indent=1) + "\n")
    chosen = trials[-1] if trials[-1].safe(limit) else min(trials, key=lambda trial: trial.cost)
    set_target_cost(policy, limit, chosen.target_return)
    return chosen


def _asked_of(limit: float, seeds: Sequence[int]) -> dict[str, Any]:
    """What trials depend on beside the policy and its data."""
    return {"limit": limit, "first_seed": seeds[0], "episodes": len(seeds)}


def _recorded(record: Path, limit: float, seeds: Sequence[int]) -> list[Trial]:
    """The trials of an earlier run; none where there was none, or it had other seeds.

    Records from before their seeds were written are lists, and taken as they are: committed results rest on them.
    """
    if not record.exists():
        return []
    found = json.loads(record.read_text())
    if isinstance(found, dict):
        if any(found[name] != value for name, value in _asked_of(limit, seeds).items()):
            return []
        found = found["trials"]
    return [Trial(**trial) for trial in found]


def _trial(policy: Policy, env: RobotEnv, quantile: float, asked: float, limit: float, seeds: Sequence[int]) -> Trial:
    """Runs the episodes, until their costs alone are more than all of them may have."""
    set_target_cost(policy, limit, asked)
    rewards: list[float] = []
    costs: list[float] = []
    for seed in seeds:
        result = rollout(env, policy, seed)
        rewards.append(result.reward)
        costs.append(result.cost)
        if sum(costs) > limit * len(seeds):
            break
    error = float(np.std(costs, ddof=1)) / math.sqrt(len(costs)) if len(costs) > 1 else 0.0
    return Trial(quantile, asked, float(np.mean(rewards)), float(np.mean(costs)), error, len(costs))
