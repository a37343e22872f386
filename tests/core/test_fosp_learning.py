"""FOSP learns to avoid an obstacle that most demonstrations go through; imitation does not."""

from __future__ import annotations

import numpy as np
import torch

from safe_policy_core.methods.fosp import FospLearner
from tests.core.fosp_rig import STATE_SPECS, PointWorld, dataset, tiny_config, windows

STEPS, EPISODES = 300, 30


def trained(**changes: object) -> FospLearner:
    rows, rng = dataset(80), np.random.default_rng(0)
    config = tiny_config(latents=8, classes=8, deter=32, units=32, vector_scale=20.0, learning_rate=3e-3,
                         actor_learning_rate=3e-3, critic_learning_rate=3e-3, reachability_learning_rate=3e-3,
                         imagination_starts=32, discount=0.95, slow_rate=0.1, slow_scale=0.1, **changes)
    learner = FospLearner(STATE_SPECS, config, seed=0)
    for _ in range(STEPS):
        learner.update(windows(rows, 8, 16, rng))
    return learner


def rates(learner: FospLearner) -> tuple[float, float]:
    """Share of episodes that reach the end, and that touch the obstacle."""
    policy, world, rng = learner.policy(), PointWorld(), np.random.default_rng(100)
    successes = violations = 0
    for episode in range(EPISODES):
        observation, touched, done, over = world.reset(rng), False, False, False
        policy.reset(episode)
        while not (done or over):
            decision = policy.act({"vector": observation}, deterministic=True)
            observation, _, cost, done, over = world.step(decision.action)
            policy.observe_executed(decision.action)
            touched |= cost > 0
        successes += done
        violations += touched
    return successes / EPISODES, violations / EPISODES


def test_fosp_is_safer_than_imitating_the_same_data() -> None:
    torch.set_num_threads(1)
    success, violation = rates(trained())
    # With both temperatures at 0 every weight is 1: behaviour cloning on the same latents.
    imitation_success, imitation_violation = rates(trained(reward_temperature=0.0, cost_temperature=0.0))
    assert min(success, imitation_success) >= 0.9
    assert imitation_violation >= 0.7
    assert violation <= imitation_violation - 0.3
