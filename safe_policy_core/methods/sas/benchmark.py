"""Speed of SAS for `make bench`: aligning and acting, at the size of the paper's Table 5 (K 20, 3 layers, 128).

With recorded prompts, of the most rows that `sim.experiments.sas` keeps, the alignment is a part of some control steps.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from safe_policy_core.methods.sas.base import Base
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.model import SasModel
from safe_policy_core.methods.sas.policy import SasPolicy
from safe_policy_core.methods.sequence.benchmark import ACTIONS, STEPS, THREADS, example_dataset, seconds
from safe_policy_core.methods.sequence.config import DtConfig

ALIGNMENTS, RECORDED = 10, 20_000
CONFIG = DtConfig(length=20, heads=1)


def rows() -> list[dict[str, Any]]:
    """One row a figure: name, value, unit; the peer is the limit, or the model without alignment."""
    dataset, base = example_dataset(RECORDED // STEPS), Base("dt", CONFIG, "")
    model = SasModel(base.empty_model(dataset.specs), SasConfig())
    model.base.measure(dataset)
    model.requires_grad_(False)
    plain = base.policy(model.base, dataset.specs, "cpu")
    policy = SasPolicy(base.policy(model.base, dataset.specs, "cpu"), model, SasConfig())
    observation, threads = {"vector": dataset.observations[0]}, torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        policy.reset(0)
        aligning = 1e3 * seconds(lambda: policy.align(observation), ALIGNMENTS)
        acting = [1e3 * _acting(actor, observation) for actor in (policy, plain)]
        config = SasConfig(recorded=RECORDED, recorded_cost=math.inf, recorded_quantile=0, realign=10)
        model.record(dataset, config)
        recorded = SasPolicy(base.policy(model.base, dataset.specs, "cpu"), model, config)
        recorded.reset(0)
        recalling = 1e3 * seconds(lambda: recorded.align(observation), ACTIONS)
    finally:
        torch.set_num_threads(threads)
    return [{"name": f"sas: alignment, N = M = 5, 100 imagined steps, {THREADS} threads", "value": aligning,
             "unit": "ms", "peer": "limit", "peer_value": 250.0, "ratio": aligning / 250.0},
            {"name": f"sas: alignment by the nearest of {RECORDED:,} recorded steps, {THREADS} threads",
             "value": recalling, "unit": "ms"},
            {"name": f"sas: action after alignment, {THREADS} threads", "value": acting[0], "unit": "ms",
             "peer": "the same model without", "peer_value": acting[1], "ratio": acting[0] / acting[1]}]


def _acting(policy: Any, observation: Any) -> float:
    """Median seconds of an action with a full context."""
    policy.reset(0)
    for _ in range(CONFIG.length):
        policy.act(observation, deterministic=True)
    return seconds(lambda: policy.act(observation, deterministic=True), ACTIONS)
