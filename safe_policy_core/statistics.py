"""Exact intervals for rates, and how well predicted probabilities hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


def binomial_cdf(successes: int, trials: int, rate: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, rate), summed in logarithms so that no term overflows."""
    if successes >= trials or rate <= 0:
        return 1.0
    if successes < 0 or rate >= 1:
        return 0.0
    logs = [math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(rate) + (trials - k) * math.log1p(-rate) for k in range(successes + 1)]
    return min(1.0, math.fsum(math.exp(term) for term in logs))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval for a rate (Clopper and Pearson, 1934). (0, 1) without trials.

    The bounds are the rates at which seeing at least (at most) `successes` has probability
    (1 - confidence) / 2, found by bisection: this needs no beta quantile.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes: expected 0 to {trials}, got {successes}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    tail = (1 - confidence) / 2
    low, high = 0.0, 1.0
    if successes > 0:
        # 1 - cdf(k - 1) grows with the rate.
        low = _bisect(lambda rate: 1 - binomial_cdf(successes - 1, trials, rate) >= tail)
    if successes < trials:
        high = _bisect(lambda rate: binomial_cdf(successes, trials, rate) <= tail)
    return low, high


def _bisect(true_above: Callable[[float], bool]) -> float:
    """The point of (0, 1) above which a monotone condition holds, to the last bits of a double."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if true_above(middle):
            high = middle
        else:
            low = middle
    return (low + high) / 2


@dataclass(frozen=True)
class CalibrationBin:
    """Predictions in [low, high): how many, their mean, and the mean of what came true."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Calibration:
    """Reliability curve. error: expected calibration error; brier: mean squared error, in [0, 1]."""

    bins: tuple[CalibrationBin, ...]
    error: float
    brier: float


def future_violation(costs: np.ndarray, discount: float = 1.0) -> np.ndarray:
    """(N,) costs received on arriving at each state -> (N,) outcomes that a violation probability predicts.

    FOSP eq. 30 unrolled along the episode: out_t = max(1[cost_t > 0], discount * out_{t+1}).
    A discount of 1 asks whether there is a violation now or later.
    """
    outcome = np.zeros(len(costs))
    following = 0.0
    for t in range(len(costs) - 1, -1, -1):
        following = max(float(costs[t] > 0), discount * following)
        outcome[t] = following
    return outcome


def calibration(predicted: np.ndarray, outcome: np.ndarray, bins: int = 10) -> Calibration:
    """Compares probabilities with outcomes in [0, 1], both (N,), in `bins` bins of equal width.

    Empty bins are left out. Raises `ValueError` without predictions or for one outside [0, 1].
    """
    predicted, outcome = np.asarray(predicted, float), np.asarray(outcome, float)
    if predicted.shape != outcome.shape or not predicted.size:
        raise ValueError(f"predicted: expected as many as outcomes and at least one, got {predicted.shape} "
                         f"and {outcome.shape}")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError("predicted: expected probabilities in [0, 1]")
    index = np.minimum((predicted * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        inside = index == number
        if inside.any():
            found.append(CalibrationBin(number / bins, (number + 1) / bins, int(inside.sum()),
                                        float(predicted[inside].mean()), float(outcome[inside].mean())))
    error = sum(entry.count * abs(entry.predicted - entry.observed) for entry in found) / len(predicted)
    return Calibration(tuple(found), error, float(np.square(predicted - outcome).mean()))
