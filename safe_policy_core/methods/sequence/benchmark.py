"""Speed of the sequence models for `make bench`, at the size of QPT's Table 4: K 10, 3 layers, 8 heads, 128 units."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import SequenceStore, augmented, cost_weights
from safe_policy_core.methods.qpt.config import QptConfig
from safe_policy_core.methods.qpt.learner import QptLearner

EPISODES, STEPS, SENSORS = 200, 1000, 60
"""As Safety-Gymnasium's goal tasks have them."""
THREADS = 2
ACTIONS = 40


def example_dataset(episodes: int = EPISODES) -> DsrlDataset:
    """Noise in the shapes of PointGoal1."""
    rng, rows = np.random.default_rng(0), episodes * STEPS
    observations = rng.standard_normal((rows, SENSORS), np.float32)
    ends = np.arange(rows) % STEPS == STEPS - 1
    return DsrlDataset.from_arrays(
        observations=observations, next_observations=np.roll(observations, -1, 0),
        actions=rng.uniform(-1, 1, (rows, 2)), rewards=rng.random(rows), costs=rng.random(rows) < 0.05,
        terminals=np.zeros(rows, bool), timeouts=ends, name="noise")


def seconds(work: Callable[[], object], calls: int) -> float:
    """Median seconds of a call, of which the first is not counted."""
    durations = []
    for _ in range(calls + 1):
        begin = time.perf_counter()
        work()
        durations.append(time.perf_counter() - begin)
    return float(np.median(durations[1:]))


def rows() -> list[dict[str, Any]]:
    """One row a figure: name, value, unit. What OSRL's CDT does too is measured beside it (`sim.osrl_peer.timing`)."""
    found: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str) -> None:
        found.append({"name": name, "value": value, "unit": unit, "peer": None, "peer_value": None, "ratio": None})

    dataset, rng = example_dataset(), np.random.default_rng(0)
    store = SequenceStore(dataset, 10, cost_weights(dataset, 100.0), augmented(dataset, 0.2, rng))
    add("sequences: sample windows of 10 steps", 2048 / seconds(lambda: store.sample(2048, 1, rng), 50), "sequences/s")
    for name, threads_used, changes in (
            ("1 candidate", 1, {"candidates": 1}),
            ("50 candidates, shared history", 1, {"shared_history": True}),
            ("50 candidates, shared history", THREADS, {"shared_history": True})):
        plural = "s" if threads_used > 1 else ""  # policy_node has 1
        add(f"qpt: action with Q selection, {name}, {threads_used} thread{plural}",
            1e3 * acting_time(dataset, changes, threads_used), "ms")
    return found


def acting_time(dataset: DsrlDataset, changes: dict[str, Any], threads: int) -> float:
    """Median seconds of an action with a full history."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        learner = QptLearner(dataset.specs, dataclasses.replace(QptConfig(), **changes))
        learner.model.requires_grad_(False)
        policy = learner.policy()
        observation = {"vector": dataset.observations[0]}
        for _ in range(10):
            policy.act(observation, deterministic=True)
        return seconds(lambda: policy.act(observation, deterministic=True), ACTIONS)
    finally:
        torch.set_num_threads(before)
