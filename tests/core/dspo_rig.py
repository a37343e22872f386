"""Trajectories small enough for the tests of DSPO to know everything about them."""

from __future__ import annotations

import numpy as np

from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.dspo.config import CloningConfig, DiffusionConfig, DiscriminatorConfig, DspoConfig
from safe_policy_core.methods.dspo.trajectories import Trajectories

SPECS = Specs({"vector": Spec("observation/vector", (2,))}, Spec("action", (1,), low=-1.0, high=1.0))
CONFIG = DspoConfig(
    DiscriminatorConfig(folds=2, layers=1, units=16, length=8, batch=8, steps=4, classifier_units=16, dropout=0.0),
    DiffusionConfig(horizon=8, dim=8, multipliers=(1, 2), diffusion_steps=10, batch=8, steps=4, generated=6,
                    sampling_steps=3),
    CloningConfig(units=16, layers=1, batch=16, steps=4))


def trajectories_of(states: list[np.ndarray], actions: list[np.ndarray], returns: np.ndarray, safe: int
                    ) -> Trajectories:
    """The first `safe` of the trajectories are D^S."""
    lengths = [len(part) for part in states]
    return Trajectories(np.concatenate(states).astype(np.float32), np.concatenate(actions).astype(np.float32),
                        np.concatenate([[0], np.cumsum(lengths)]), np.asarray(returns, float),
                        np.arange(len(states)) < safe, SPECS, f"rig {len(states)} {safe}")


def lines(count: int, safe: int, seed: int = 0) -> Trajectories:
    """Straight lines from -0.5 that rise by their return in [0, 1]; every second ends after 6 steps, others after 8."""
    rng = np.random.default_rng(seed)
    returns = rng.uniform(0, 1, count)
    states, actions = [], []
    for index, value in enumerate(returns):
        time = np.arange(8 if index % 2 else 6) / 5
        states.append(np.stack([-0.5 + value * time, np.zeros_like(time)], 1).clip(-1, 1))
        actions.append(np.full((len(time), 1), value - 0.5))
    return trajectories_of(states, actions, returns, safe)


def corridors(count: int, safe: int, seed: int = 0, steps: int = 8) -> tuple[Trajectories, np.ndarray]:
    """Trajectories in the plane (return, danger): the first number is their return, the second their danger.

    Safe is danger < 0. The demonstrations are safe and of high return, all others anywhere. Returns (E,) truth too.
    """
    rng = np.random.default_rng(seed)
    returns = np.concatenate([rng.uniform(0.4, 1, safe), rng.uniform(-1, 1, count - safe)])
    danger = np.concatenate([rng.uniform(-1, -0.2, safe), rng.uniform(-1, 1, count - safe)])
    points = np.stack([returns, danger], 1)
    states = [np.clip(point + 0.05 * rng.normal(size=(steps, 2)), -1, 1) for point in points]
    return trajectories_of(states, [np.zeros((steps, 1))] * count, returns, safe), danger < 0
