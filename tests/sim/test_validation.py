"""What a sequence model may ask for, found on layouts that no test sees: a policy and costs known by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.interfaces import ActionDecision, Observation, StepResult
from safe_policy_core.targets import set_target_cost
from sim.experiments.validation import QUANTILES, Trial, ask_safely
from tests.core.point_env import PointEnv, ScriptedPolicy

LIMIT = 2.0
SEEDS = range(10)


class PaidEnv(PointEnv):
    """One step long; pays what the action is, and costs what `cost` says of it and of the seed."""

    def __init__(self, cost: dict[float, list[float]]) -> None:
        super().__init__()
        self.cost = cost
        self.seeds: list[int] = []

    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        self.seeds.append(seed)
        return super().reset(seed)

    def step(self, action: np.ndarray) -> StepResult:
        observation, _, _, _, _, info = super().step(action)
        asked = min(self.cost, key=lambda known: abs(known - 10 * float(action[0])))
        costs = self.cost[asked]
        return observation, asked, costs[self.seeds[-1] % len(costs)], True, False, info


class AskingPolicy(ScriptedPolicy):
    """Does a tenth of what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.target: tuple[float | None, float | None] = (None, None)

    def set_target_cost(self, cost: float | None, target_return: float | None = None) -> None:
        self.target = (cost, target_return)

    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        assert self.target[1] is not None
        return ActionDecision(np.array([self.target[1] / 10], np.float32))


def dataset() -> DsrlDataset:
    """Affordable episodes of returns 0 to 5 whose quantiles are 5, 4.75, 4.25 and 3.5, and a dear one of return 9."""
    returns = [0.0, 1, 2, 3, 4, 5, 9]
    rows = len(returns)
    return DsrlDataset.from_arrays(
        observations=np.zeros((rows, 2), np.float32), next_observations=np.zeros((rows, 2), np.float32),
        actions=np.zeros((rows, 1), np.float32), rewards=np.array(returns), costs=np.array([0.0] * 6 + [5]),
        terminals=np.ones(rows, bool), timeouts=np.zeros(rows, bool))


def asked(costs: list[list[float]], folder: Path, seeds: range = SEEDS) -> tuple[Trial, AskingPolicy, PaidEnv]:
    """costs: of each quantile in turn, by the seed."""
    returns = [5.0, 4.75, 4.25, 3.5]
    policy, env = AskingPolicy(), PaidEnv(dict(zip(returns, costs, strict=True)))
    return ask_safely(policy, env, dataset(), LIMIT, seeds, folder / "asked.json"), policy, env


def test_the_highest_return_that_is_safe_is_asked_for(tmp_path: Path) -> None:
    found, policy, env = asked([[9.0], [1.0], [0.0], [0.0]], tmp_path)
    assert (found.quantile, found.cost, found.episodes) == (0.95, 1.0, len(SEEDS))
    assert found.target_return == pytest.approx(4.75)
    assert policy.target == (LIMIT, found.target_return)
    # The first passed the limit of all ten episodes, 20, in its third one; what is asked for less was not tried.
    assert env.seeds == [*SEEDS[:3], *SEEDS]


def test_a_mean_within_the_limit_by_less_than_its_error_is_not_safe(tmp_path: Path) -> None:
    """Costs of 0 and 3.6, ten of them: mean 1.8, standard error 1.8 * sqrt(10 / 9) / sqrt(10) = 0.6."""
    found, _, _ = asked([[0.0, 3.6], [1.9], [0.0], [0.0]], tmp_path)
    trials = json.loads((tmp_path / "asked.json").read_text())["trials"]
    assert trials[0]["cost"] == pytest.approx(1.8)
    assert trials[0]["cost_error"] == pytest.approx(0.6)
    assert found.quantile == 0.95


def test_where_none_is_safe_the_least_cost_is_asked_for(tmp_path: Path) -> None:
    found, policy, _ = asked([[9.0], [5.0], [3.0], [4.0]], tmp_path)
    assert found.quantile == 0.85
    assert policy.target == (LIMIT, pytest.approx(4.25))
    trials = json.loads((tmp_path / "asked.json").read_text())["trials"]
    assert [trial["quantile"] for trial in trials] == list(QUANTILES)


def test_what_was_tried_is_not_run_again(tmp_path: Path) -> None:
    first, _, _ = asked([[9.0], [5.0], [1.0], [0.0]], tmp_path)
    again, policy, env = asked([[0.0], [0.0], [0.0], [0.0]], tmp_path)
    assert (again, policy.target, env.seeds) == (first, (LIMIT, first.target_return), [])
    set_target_cost(policy, None)
    assert policy.target == (None, None)


def test_trials_on_other_episodes_are_run_anew(tmp_path: Path) -> None:
    asked([[9.0], [5.0], [1.0], [0.0]], tmp_path)
    found, _, env = asked([[0.0], [0.0], [0.0], [0.0]], tmp_path, range(4))
    assert (found.quantile, found.episodes, env.seeds) == (1.0, 4, list(range(4)))
    record = json.loads((tmp_path / "asked.json").read_text())
    assert (record["limit"], record["first_seed"], record["episodes"]) == (LIMIT, 0, 4)


def test_a_record_without_seeds_counts_as_it_did(tmp_path: Path) -> None:
    """A list alone, as committed results were chosen by."""
    first, _, _ = asked([[9.0], [5.0], [1.0], [0.0]], tmp_path)
    path = tmp_path / "asked.json"
    path.write_text(json.dumps(json.loads(path.read_text())["trials"]))
    again, _, env = asked([[0.0], [0.0], [0.0], [0.0]], tmp_path, range(4))
    assert (again, env.seeds) == (first, [])
