"""Running a policy in an environment and saying how good and how safe it was."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safe_policy_core import __version__
from safe_policy_core.data.episodes import Episode
from safe_policy_core.errors import SpecError
from safe_policy_core.interfaces import Policy, RobotEnv
from safe_policy_core.statistics import Calibration, calibration, clopper_pearson, future_violation


@dataclass
class EpisodeResult:
    """One episode.

    reward, cost: undiscounted sums. success, violation: the environment's own word, or any reward
    at termination and any cost. chosen_policies, filter_reasons: in how many steps each occurred.
    violation_probability: per step, where the policy estimates it, and step_costs beside it.
    episode: what was recorded, when asked for.
    """

    seed: int
    steps: int
    reward: float
    cost: float
    success: bool
    violation: bool
    terminated: bool
    truncated: bool
    chosen_policies: dict[str, int]
    filter_reasons: dict[str, int]
    step_costs: np.ndarray
    violation_probability: np.ndarray | None = None
    episode: Episode | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Summary:
    """Means over episodes, rates with exact 95% intervals, and what the safety estimate was worth.

    cost_regret: mean cost per step over everything that ran (FOSP D.2). policy_shares: share of
    the steps in which each policy acted. calibration: reliability of the violation probability
    against the discounted future violation (FOSP eq. 30) at `calibration_discount`, None when
    the policy gives none. calibration_undiscounted: against any violation later in the episode.
    """

    episodes: int
    steps: int
    reward: float
    cost: float
    episode_length: float
    success_rate: float
    success_interval: tuple[float, float]
    violation_rate: float
    violation_interval: tuple[float, float]
    cost_regret: float
    policy_shares: dict[str, float]
    filter_shares: dict[str, float]
    calibration_discount: float
    calibration: Calibration | None = None
    calibration_undiscounted: Calibration | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; tuples become lists."""
        return dataclasses.asdict(self)


def rollout(env: RobotEnv, policy: Policy, seed: int, deterministic: bool = True, *, record: bool = False,
            metadata: dict[str, Any] | None = None, on_step: Callable[[dict[str, Any]], None] | None = None
            ) -> EpisodeResult:
    """One episode that `seed` fixes, in the environment and in the policy.

    record: keep it as an `Episode` with `metadata` added. on_step: called with each step's info.
    Raises `SpecError` when the policy was made for other specs than the environment's.
    """
    if difference := env.specs.difference(policy.specs):
        raise SpecError(f"policy: made for other specs than the environment: {difference} (environment against policy)")
    observation, info = env.reset(seed)
    policy.reset(seed)
    recorder = _Recorder(env, seed) if record else None
    if recorder is not None:
        recorder.observe(observation, info)
    rewards, costs, probabilities = [], [], []
    chosen: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    terminated = truncated = False
    while not (terminated or truncated):
        decision = policy.act(observation, deterministic)
        observation, reward, cost, terminated, truncated, info = env.step(decision.action)
        # What really ran is what a recurrent policy must condition on.
        policy.observe_executed(info["executed_action"])
        policy.observe_outcome(reward, cost)
        rewards.append(reward)
        costs.append(cost)
        probabilities.append(decision.violation_probability)
        chosen[decision.chosen_policy] += 1
        reasons.update(reason for reason in info.get("filter_reason", "").split(",") if reason)
        if recorder is not None:
            recorder.step(decision.action, observation, reward, cost, terminated, truncated, info)
        if on_step is not None:
            on_step(info)
    known = [probability for probability in probabilities if probability is not None]
    success = bool(info.get("success", terminated and rewards[-1] > 0))
    return EpisodeResult(
        seed=seed, steps=len(rewards), reward=float(np.sum(rewards)), cost=float(np.sum(costs)), success=success,
        violation=bool(info.get("violation", np.sum(costs) > 0)), terminated=terminated, truncated=truncated,
        chosen_policies=dict(chosen), filter_reasons=dict(reasons), step_costs=np.asarray(costs, np.float32),
        violation_probability=np.asarray(known) if len(known) == len(rewards) else None,
        episode=None if recorder is None else recorder.episode((metadata or {}) | {"success": success}))


def evaluate(env: RobotEnv, policy: Policy, seeds: Sequence[int], deterministic: bool = True, *,
             on_episode: Callable[[EpisodeResult], None] | None = None) -> Summary:
    """One episode for each seed. `on_episode` is called after each."""
    results = []
    for seed in seeds:
        results.append(rollout(env, policy, seed, deterministic))
        if on_episode is not None:
            on_episode(results[-1])
    return summarize(results)


def summarize(results: Sequence[EpisodeResult], calibration_discount: float = 0.99) -> Summary:
    """Summary of finished episodes. Raises `ValueError` when there are none."""
    if not results:
        raise ValueError("results: expected at least one episode")
    count, steps = len(results), sum(result.steps for result in results)
    successes, violations = sum(result.success for result in results), sum(result.violation for result in results)
    chosen: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for result in results:
        chosen.update(result.chosen_policies)
        reasons.update(result.filter_reasons)
    curves: list[Calibration | None] = [None, None]
    estimates = [result.violation_probability for result in results if result.violation_probability is not None]
    if len(estimates) == count:
        for index, discount in enumerate((calibration_discount, 1.0)):
            # A prediction is made before its step, in the state that the step before led to.
            outcomes = [future_violation(np.append(0, result.step_costs), discount)[:-1] for result in results]
            curves[index] = calibration(np.concatenate(estimates), np.concatenate(outcomes))
    return Summary(
        episodes=count, steps=steps, reward=float(np.mean([result.reward for result in results])),
        cost=float(np.mean([result.cost for result in results])), episode_length=steps / count,
        success_rate=successes / count, success_interval=clopper_pearson(successes, count),
        violation_rate=violations / count, violation_interval=clopper_pearson(violations, count),
        cost_regret=cost_regret(results), calibration_discount=calibration_discount,
        policy_shares={name: number / steps for name, number in sorted(chosen.items())},
        filter_shares={name: number / steps for name, number in sorted(reasons.items())},
        calibration=curves[0], calibration_undiscounted=curves[1])


def cost_regret(results: Sequence[EpisodeResult]) -> float:
    """rho_c = sum of all costs / number of steps, over the episodes of a training (FOSP D.2)."""
    return float(sum(result.cost for result in results) / sum(result.steps for result in results))


class _Recorder:
    """Collects the rows of an `Episode` while it runs. Its time is the environment's, or step counts without one."""

    def __init__(self, env: RobotEnv, seed: int) -> None:
        self._specs, self._seed = env.specs, seed
        self._observations: list[dict[str, np.ndarray]] = []
        self._times: list[int] = []
        self._rows: list[tuple[Any, ...]] = []

    def observe(self, observation: dict[str, np.ndarray], info: dict[str, Any]) -> None:
        self._observations.append({name: np.array(value) for name, value in observation.items()})
        self._times.append(int(info.get("time_ns", len(self._times))))

    def step(self, requested: np.ndarray, observation: dict[str, np.ndarray], reward: float, cost: float,
             terminated: bool, truncated: bool, info: dict[str, Any]) -> None:
        human = info.get("human_action")
        self._rows.append((np.array(info["executed_action"]), np.array(requested),
                           np.zeros_like(requested) if human is None else np.array(human),
                           bool(info.get("intervention", False)), info.get("filter_reason", ""), reward, cost,
                           terminated, truncated))
        self.observe(observation, info)

    def episode(self, metadata: dict[str, Any]) -> Episode:
        executed, policy, human, intervention, reasons, reward, cost, terminated, truncated = zip(
            *self._rows, strict=True)
        return Episode(
            {name: np.stack([row[name] for row in self._observations]) for name in self._specs.observation},
            np.stack(executed), np.stack(policy), np.stack(human), np.array(intervention, bool), list(reasons),
            np.array(reward, np.float32), np.array(cost, np.float32), np.array(terminated, bool),
            np.array(truncated, bool), np.array(self._times, np.int64),
            {"seed": self._seed, "specs": self._specs.to_json(), "software": {"safe_policy": __version__}} | metadata)
