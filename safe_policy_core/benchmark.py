"""Speed figures of the core for `make bench`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from safe_policy_core.data.episodes import Episode, EpisodeStore, read_episode, write_episode
from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.sequence.benchmark import rows as sequence_rows

EPISODES, STEPS = 200, 30
"""As many as FOSP's real dataset has, in the length that SafeReach's have on average."""
BATCH, LENGTH = 16, 16
SECONDS = 1.0
"""How long each figure is measured at least."""


def example_episode(seed: int, steps: int = STEPS) -> Episode:
    """An episode of SafeReach's shapes. Its pictures are smooth, so that they compress as rendered ones do."""
    rng = np.random.default_rng(seed)
    specs = Specs({"image": Spec("observation/image", (64, 64, 3), "uint8", 0, 255),
                   "pose": Spec("observation/pose", (6,), unit="m, rad")}, Spec("action", (6,), low=-1.0, high=1.0),
                  {"max_translation_step": 0.015, "max_rotation_step": 0.05})
    coarse = rng.integers(0, 256, (steps + 1, 8, 8, 3), dtype=np.uint8)
    actions = rng.uniform(-1, 1, (steps, 6)).astype(np.float32)
    ends = np.arange(steps) == steps - 1
    return Episode(
        {"image": coarse.repeat(8, 1).repeat(8, 2), "pose": rng.normal(size=(steps + 1, 6)).astype(np.float32)},
        actions, actions, np.zeros_like(actions), np.zeros(steps, bool), [""] * steps, ends.astype(np.float32),
        np.zeros(steps, np.float32), ends, np.zeros(steps, bool), np.arange(steps + 1) * 100_000_000,
        {"task": "original", "seed": seed, "specs": specs.to_json()})


def per_second(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """Calls per second; the first call is not counted."""
    work()
    calls, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        work()
        calls += 1
    return calls / elapsed


def read_window(files: list[Path], batch: int, length: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """The usual way of small projects: open a file of HDF5 for each sequence and read a slice of each field."""
    windows = []
    for index in rng.integers(0, len(files), batch):
        with h5py.File(files[index]) as file:
            start = int(rng.integers(0, max(1, len(file["time_ns"]) - length)))
            rows = slice(start, start + length)
            windows.append({name: file[name][rows] for name in
                            ("observation/image", "observation/pose", "action/executed", "reward", "cost")})
    return windows


def rows() -> list[dict[str, Any]]:
    """One row a figure: name, value, unit, peer, peer_value, ratio."""
    found: list[dict[str, Any]] = []

    def add(name: str, value: float, unit: str, peer: str | None = None, peer_value: float | None = None) -> None:
        found.append({"name": name, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value,
                      "ratio": value / peer_value if peer_value else None})

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{seed:03d}.h5" for seed in range(EPISODES)]
        begin = time.perf_counter()
        for seed, path in enumerate(files):
            write_episode(path, example_episode(seed))
        add("episode file: write, 30 steps, synced to disk", EPISODES / (time.perf_counter() - begin), "episodes/s")
        begin = time.perf_counter()
        for path in files:
            read_episode(path)
        add("episode file: read and verify, 30 steps", EPISODES / (time.perf_counter() - begin), "episodes/s")
        begin = time.perf_counter()
        store = EpisodeStore(folder)
        store.rows  # noqa: B018 - loads the files
        add("episode store: load 200 episodes", time.perf_counter() - begin, "s")
        rng = np.random.default_rng(0)
        sampled = BATCH * per_second(lambda: store.sample(BATCH, LENGTH, rng))
        naive = BATCH * per_second(lambda: read_window(files, BATCH, LENGTH, rng))
        add("episode store: sample sequences of 16 frames 64x64", sampled, "sequences/s",
            "a slice of the HDF5 file per sequence", naive)
    return found + sequence_rows()
