"""A tiny pretrained policy of SafeReach's specs, and episodes of noise for it to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from safe_policy_core.data.episodes import Episode, EpisodeStore, write_episode
from safe_policy_core.methods.registry import make_learner
from sim.safe_reach.task import SPECS
from tests.core.fosp_rig import tiny_config


def noise_episode(seed: int, steps: int = 12) -> Episode:
    rng = np.random.default_rng(seed)
    def actions() -> np.ndarray:
        return rng.uniform(-1, 1, (steps, 6)).astype(np.float32)
    flags = np.zeros(steps, bool)
    last = flags.copy()
    last[-1] = True
    return Episode(
        observations={"image": rng.integers(0, 256, (steps + 1, 64, 64, 3), dtype=np.uint8),
                      "pose": rng.normal(size=(steps + 1, 6)).astype(np.float32)},
        executed_action=actions(), policy_action=actions(), human_action=np.zeros((steps, 6), np.float32),
        intervention=flags, filter_reason=[""] * steps, reward=last.astype(np.float32),
        cost=(rng.random(steps) < 0.2).astype(np.float32), terminated=last, truncated=flags,
        time_ns=np.arange(steps + 1, dtype=np.int64) * 100_000_000, metadata={"specs": SPECS.to_json(), "seed": seed})


def write_episodes(directory: Path, count: int = 3, first_seed: int = 0) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{seed}.h5" for seed in range(first_seed, first_seed + count)]
    for seed, path in enumerate(paths, first_seed):
        write_episode(path, noise_episode(seed))
    return paths


def tiny_checkpoint(directory: Path, data: Path, seed: int = 0) -> Path:
    """A FOSP of a few thousand weights after one update."""
    torch.set_num_threads(1)  # of so small a net, a second thread would only wait, and busily
    learner = make_learner("fosp", SPECS, tiny_config(), seed)
    learner.update(EpisodeStore([data]).sample(2, 6, np.random.default_rng(seed)))
    learner.save(directory)
    return directory
