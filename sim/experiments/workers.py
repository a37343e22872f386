"""Runs jobs one after the other in this process, in several processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.errors import ConfigurationError
from sim.experiments.job import Failure, Job, attempt
from sim.experiments.rows import Row

LOCAL = "local"
"""Ray address that starts a cluster on this machine for this run."""
CONNECT_SECONDS = 5.0


def run_here(jobs: Sequence[Job], datasets: Mapping[str, DsrlDataset], workers: int) -> Iterator[Row | Failure]:
    """Yields what becomes of each job as it ends, in `workers` processes; one works in this process."""
    if workers <= 1:
        for job in jobs:
            yield attempt(job, datasets[job.dataset], progress=True)
        return
    # EGL and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = [pool.submit(attempt, job, datasets[job.dataset]) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_on_ray(jobs: Sequence[Job], datasets: Mapping[str, DsrlDataset], workers: int, address: str
               ) -> Iterator[Row | Failure]:
    """As `run_here`, on the cluster at `address`: as many at once as it has processors.

    Datasets travel through Ray's object store, once a machine. Every machine needs this project in the same Python
    version; checkpoints stay on the machine that trained, so only a machine's own killed jobs resume in the middle.
    Raises `ConfigurationError` when no cluster answers.
    """
    import ray

    try:
        if address == LOCAL:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="warning")
        else:
            _require_listener(address)
            ray.init(address=address, log_to_driver=False, logging_level="warning")
    except ConfigurationError:
        raise
    except Exception as error:  # Ray raises the bare class when a machine is too slow to start
        raise ConfigurationError(f"ray: no cluster at {address!r} ({error})") from error
    try:
        stored = {name: ray.put(dataset) for name, dataset in datasets.items()}
        # A lost machine's jobs run again elsewhere.
        remote = ray.remote(num_cpus=1, max_retries=3)(attempt)
        waiting = [remote.remote(job, stored[job.dataset]) for job in jobs]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Ray itself tries for minutes. Raises `ConfigurationError` when nothing listens at HOST:PORT."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigurationError(f"ray: expected HOST:PORT, auto or {LOCAL}, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigurationError(f"ray: no cluster at {address!r} ({error})") from error
