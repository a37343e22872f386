import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_policy_core.errors import SpecError
from safe_policy_core.evaluation import EpisodeResult, cost_regret, evaluate, rollout, summarize
from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.statistics import binomial_cdf, calibration, clopper_pearson, future_violation
from tests.core.point_env import FAST, MAX_STEPS, SPECS, GoalPolicy, PointEnv, ScriptedPolicy

INTERVAL_TOLERANCE = 1e-9


# 95% intervals from scipy.stats.beta.ppf (Clopper and Pearson's formula with beta quantiles).
@pytest.mark.parametrize(("successes", "trials", "low", "high"), [
    (0, 10, 0.0, 0.3084971078187608), (10, 10, 0.6915028921812392, 1.0),
    (5, 10, 0.18708602844739855, 0.8129139715526015), (1, 1, 0.025, 1.0), (0, 1, 0.0, 0.975),
    (38, 40, 0.8308031360405823, 0.9938863534006491), (3, 200, 0.003104107621553509, 0.0432082819177126),
])
def test_interval_against_known_values(successes: int, trials: int, low: float, high: float) -> None:
    found = clopper_pearson(successes, trials)
    assert found[0] == pytest.approx(low, abs=INTERVAL_TOLERANCE)
    assert found[1] == pytest.approx(high, abs=INTERVAL_TOLERANCE)


@settings(max_examples=50, deadline=None)
@given(trials=st.integers(1, 300), data=st.data())
def test_interval_bounds_have_the_tail_probabilities(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(successes, trials, 0.9)
    assert 0 <= low <= successes / trials <= high <= 1
    if successes > 0:
        assert 1 - binomial_cdf(successes - 1, trials, low) == pytest.approx(0.05, abs=1e-6)
    if successes < trials:
        assert binomial_cdf(successes, trials, high) == pytest.approx(0.05, abs=1e-6)


def test_interval_edges() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(3, 2)
    with pytest.raises(ValueError, match="confidence"):
        clopper_pearson(1, 2, 1.0)


def test_binomial_cdf_by_hand() -> None:
    assert binomial_cdf(1, 3, 0.5) == pytest.approx(4 / 8)
    assert binomial_cdf(0, 4, 0.25) == pytest.approx(0.75**4)


def test_future_violation_unrolls_equation_30() -> None:
    costs = np.array([0, 0, 2.0, 0, 0])
    np.testing.assert_allclose(future_violation(costs), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(future_violation(costs, 0.9), [0.81, 0.9, 1, 0, 0])


def test_calibration_by_hand() -> None:
    curve = calibration(np.array([0.05, 0.05, 0.95, 0.85, 1.0]), np.array([0, 1, 1, 1, 0.0]), bins=10)
    assert [(entry.low, entry.count) for entry in curve.bins] == [(0.0, 2), (0.8, 1), (0.9, 2)]
    assert curve.bins[0].predicted == pytest.approx(0.05)
    assert curve.bins[0].observed == pytest.approx(0.5)
    assert curve.error == pytest.approx((2 * 0.45 + 1 * 0.15 + 2 * abs(0.975 - 0.5)) / 5)
    assert curve.brier == pytest.approx((0.05**2 + 0.95**2 + 0.05**2 + 0.15**2 + 1) / 5)


def test_probabilities_that_hold_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.random(20_000)
    right = calibration(predicted, rng.random(20_000) < predicted)
    wrong = calibration(predicted, rng.random(20_000) < predicted**3)
    assert right.error < 0.02
    assert wrong.error > 0.15


@pytest.mark.parametrize("predicted", [[], [0.5, 1.5], [math.nan]])
def test_calibration_refuses_what_is_no_probability(predicted: list[float]) -> None:
    with pytest.raises(ValueError, match="predicted"):
        calibration(np.array(predicted), np.zeros(len(predicted)))


def test_rollout_of_the_expert_reaches_the_goal() -> None:
    result = rollout(PointEnv(), GoalPolicy(), seed=3)
    assert (result.success, result.violation, result.terminated, result.truncated) == (True, False, True, False)
    assert result.reward == 1
    assert result.cost == 0
    assert result.chosen_policies == {"policy": result.steps}


def test_rollout_tells_the_policy_and_the_record_what_really_ran() -> None:
    policy = ScriptedPolicy(speed=1.0)
    result = rollout(PointEnv(), policy, seed=0, record=True, metadata={"operator": "test"})
    assert policy.executed == pytest.approx([FAST] * result.steps)
    assert result.filter_reasons == {"speed": result.steps}
    episode = result.episode
    assert episode is not None
    np.testing.assert_allclose(episode.executed_action, FAST)
    np.testing.assert_allclose(episode.policy_action, 1.0)
    assert episode.filter_reason == ["speed"] * result.steps
    assert episode.metadata["operator"] == "test"
    assert episode.metadata["seed"] == 0
    assert episode.success == result.success
    assert not episode.specs.difference(SPECS)
    assert len(episode.validated()) == result.steps
    # Observations do not share memory with what the environment goes on changing.
    assert np.unique(episode.observations["vector"][:, 0]).size == result.steps + 1


def test_rollout_counts_costs_and_policies() -> None:
    result = rollout(PointEnv(), ScriptedPolicy(speed=-0.5), seed=0)
    assert (result.success, result.violation, result.truncated, result.steps) == (False, True, True, MAX_STEPS)
    assert result.cost == result.step_costs.sum() > 0
    assert result.chosen_policies == {"online": MAX_STEPS / 2, "offline": MAX_STEPS / 2}


def test_rollout_refuses_a_policy_of_other_specs() -> None:
    policy = GoalPolicy()
    policy.specs = Specs(SPECS.observation, Spec("action", (2,), low=-1.0, high=1.0), SPECS.scales)
    with pytest.raises(SpecError, match="action"):
        rollout(PointEnv(), policy, seed=0)


def result_of(costs: list[float], success: bool, probability: list[float] | None = None,
              chosen: dict[str, int] | None = None) -> EpisodeResult:
    return EpisodeResult(seed=0, steps=len(costs), reward=float(success), cost=sum(costs), success=success,
                         violation=any(costs), terminated=success, truncated=not success,
                         chosen_policies=chosen or {"policy": len(costs)}, filter_reasons={},
                         step_costs=np.array(costs), violation_probability=None if probability is None
                         else np.array(probability))


def test_summary_by_hand() -> None:
    summary = summarize([result_of([0, 0], True, [0.0, 0.0], {"online": 1, "offline": 1}),
                         result_of([0, 1, 1, 0, 0, 0], False, [0.99, 1.0, 1.0, 0.0, 0.0, 0.0], {"offline": 6})])
    assert (summary.episodes, summary.steps, summary.reward, summary.cost) == (2, 8, 0.5, 1.0)
    assert summary.success_rate == summary.violation_rate == 0.5
    assert summary.success_interval == clopper_pearson(1, 2)
    assert summary.cost_regret == 2 / 8
    assert summary.policy_shares == {"offline": 7 / 8, "online": 1 / 8}
    # Predictions are made before the step: the first cost arrives after the second action, so the
    # outcome at the first two states is 0.99 squared and 0.99.
    assert summary.calibration is not None
    assert summary.calibration.brier == pytest.approx(((0.99 - 0.99**2)**2 + (1 - 0.99)**2 + 0 + 1 ) / 8)
    json.dumps(summary.to_json())


def test_summary_without_estimates_has_no_calibration() -> None:
    assert summarize([result_of([0], True)]).calibration is None
    with pytest.raises(ValueError, match="at least one"):
        summarize([])


def test_cost_regret_is_cost_per_step_of_the_whole_training() -> None:
    assert cost_regret([result_of([1, 1], False), result_of([0] * 8, True)]) == pytest.approx(0.2)


def test_evaluation_tells_a_good_policy_from_a_bad_one() -> None:
    seen = []
    good = evaluate(PointEnv(), GoalPolicy(), range(10), on_episode=seen.append)
    bad = evaluate(PointEnv(), ScriptedPolicy(speed=-0.5, probability=0.5), range(10))
    assert (good.success_rate, good.violation_rate) == (1.0, 0.0)
    assert (bad.success_rate, bad.violation_rate) == (0.0, 1.0)
    assert [result.seed for result in seen] == list(range(10))
    assert bad.calibration is not None
