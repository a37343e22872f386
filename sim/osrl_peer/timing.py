"""Milliseconds of a training step, this project's beside OSRL's, in turns on the same machine."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from safe_policy_core.data.dsrl import DsrlDataset, write_dsrl
from safe_policy_core.methods.registry import METHODS, make_learner
from safe_policy_core.methods.sequence import benchmark as sequences
from safe_policy_core.training.steps import Precision
from sim.osrl_peer.peer import PYTHON, Job, run

BATCH, STEPS = 512, 30
CANDIDATES = 50
TIMED, FOUR_CRITICS = ("cpq", "bcq_lag", "bear_lag", "coptidice"), ("bcq_lag", "bear_lag")


def example_dataset(observations: int = 72, actions: int = 2, episodes: int = 20, length: int = 500) -> DsrlDataset:
    """Random steps in the shapes of CarGoal1."""
    rng = np.random.default_rng(0)
    rows = episodes * length
    state = rng.normal(size=(rows, observations)).astype(np.float32)
    ends = np.arange(rows) % length == length - 1
    return DsrlDataset.from_arrays(
        observations=state, next_observations=np.roll(state, -1, 0), actions=rng.uniform(-1, 1, (rows, actions)),
        rewards=rng.normal(size=rows), costs=(rng.random(rows) < 0.1).astype(np.float32),
        terminals=np.zeros(rows, bool), timeouts=ends)


def own_step_time(method: str, dataset: DsrlDataset, batch: int, threads: int, steps: int = STEPS,
                  precision: Precision = "float32") -> float:
    """Median of a training step [ms], the reading of the batch included."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        learner: Any = make_learner(method, dataset.specs)
        source, rng, durations = learner.data_source(dataset), np.random.default_rng(0), []
        for _ in range(steps):
            begin, windows = time.perf_counter(), source.sample(batch, 1, rng)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                learner.update(windows)
            durations.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return 1e3 * float(np.median(durations))


def osrl_step_time(method: str, dataset: DsrlDataset, path: Path, batch: int, threads: int,
                   equal_networks: bool = False) -> float:
    """The same of OSRL, as it comes or with as many critics as ours."""
    low, high = float(dataset.returns.min()), float(dataset.returns.max())
    return run(Job(method, str(path), STEPS, batch, 10.0, int(dataset.lengths.max()), (low, high), high,
                   threads=threads, equal_networks=equal_networks)).step_time


def table(dataset: DsrlDataset, path: Path, methods: Sequence[str], batch: int, threads: int) -> Iterator[str]:
    """One line a method that both have."""
    for method in methods:
        theirs = osrl_step_time(method, dataset, path, batch, threads)
        if method in METHODS and method in TIMED:
            mine = own_step_time(method, dataset, batch, threads)
            yield f"{method:<10} {mine:8.1f} ms   OSRL {theirs:8.1f} ms   {theirs / mine:.2f} times as fast"
        else:
            yield f"{method:<10} OSRL {theirs:8.1f} ms"


def rows() -> list[dict[str, Any]]:
    """Rows for `make bench`; OSRL's figures are there where it is installed."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path, dataset = Path(folder) / "example.hdf5", example_dataset()
        write_dsrl(path, dataset)
        for threads, method in itertools.product((1, 2), TIMED):
            mine = own_step_time(method, dataset, BATCH, threads)
            # OSRL has four critics a signal in BCQ-Lag and BEAR-Lag, the papers and we have two: beside both.
            for equal in (False, True) if PYTHON.is_file() and method in FOUR_CRITICS else (False,):
                theirs = osrl_step_time(method, dataset, path, BATCH, threads, equal) if PYTHON.is_file() else None
                found.append(_row(f"{method}: training step, batch {BATCH}, {threads} threads", mine, theirs,
                                  "OSRL with two critics" if equal else "OSRL"))
        found += _sequence_rows(Path(folder) / "windows.hdf5")
    return found


def _sequence_rows(path: Path) -> Iterator[dict[str, Any]]:
    """CDT and QPT beside OSRL's CDT, which has no critics and computes in float32."""
    dataset = sequences.example_dataset()
    write_dsrl(path, dataset)
    for batch, steps in ((256, 15), (2048, 5)):
        theirs = _osrl_cdt("cdt", dataset, path, batch, steps)
        for method, precision in itertools.product(("cdt", "qpt"), get_args(Precision)):
            mine = own_step_time(method, dataset, batch, sequences.THREADS, steps, precision)
            yield _row(f"{method}: training step, batch {batch}, {sequences.THREADS} threads, {precision}", mine,
                       theirs, "OSRL's CDT")
    theirs = _osrl_cdt("cdt_action", dataset, path, CANDIDATES, STEPS)
    mine = 1e3 * sequences.acting_time(dataset, {"candidates": CANDIDATES}, sequences.THREADS)
    yield _row(f"qpt: action with Q selection, {CANDIDATES} candidates, {sequences.THREADS} threads", mine, theirs,
               f"OSRL's CDT, {CANDIDATES} actions, none chosen")


def _osrl_cdt(method: str, dataset: DsrlDataset, path: Path, batch: int, steps: int) -> float | None:
    if not PYTHON.is_file():
        return None
    low, high = float(dataset.returns.min()), float(dataset.returns.max())
    return run(Job(method, str(path), steps, batch, 10.0, int(dataset.lengths.max()), (low, high), high,
                   threads=sequences.THREADS)).step_time


def _row(name: str, mine: float, theirs: float | None, peer: str) -> dict[str, Any]:
    """Of two times [ms], as calls a second."""
    return {"name": name, "value": 1e3 / mine, "unit": "1/s", "peer": peer if theirs else None,
            "peer_value": 1e3 / theirs if theirs else None, "ratio": theirs / mine if theirs else None}
