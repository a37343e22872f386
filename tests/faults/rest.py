"""When the arm is at rest, from the simulated arm's own state."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import dataclass

import numpy as np

from safe_policy_core.errors import RobotUnavailableError
from sim.safe_reach.link import SceneLink

log = logging.getLogger(__name__)

PERIOD = 0.004
"""[s] Between two looks; the scene is published every 10 ms."""
REST_SPEED = 0.01
"""[m/s] Of the tool: under a fifteenth of the task's speed."""
REST_JOINT_SPEED = 0.05
"""[rad/s] Of the fastest joint."""
SETTLED = 0.25
"""[s] How long the arm has to stay below these to be called at rest."""
GIVE_UP = 4.0


@dataclass(frozen=True)
class Sample:
    """time [s] on the steady clock; tool (3,) [m]; joints (7,) [rad]."""

    time: float
    tool: np.ndarray
    joints: np.ndarray


class ArmWatch:
    """Looks at the scene in a thread of its own and remembers the last `keep` seconds."""

    def __init__(self, address: str, keep: float = 30.0) -> None:
        self._link = SceneLink(address)
        self._keep = keep
        self._samples: list[Sample] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arm watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = 0
        while not self._closing.wait(PERIOD):
            try:
                snapshot = self._link.snapshot()
            except RobotUnavailableError as error:
                log.warning("%s", error)
                continue
            if snapshot.monotonic_ns == last:
                continue
            last = snapshot.monotonic_ns
            sample = Sample(last * 1e-9, snapshot.tool[:3], snapshot.qpos[:7])
            with self._lock:
                self._samples.append(sample)
                while self._samples[0].time < sample.time - self._keep:
                    self._samples.pop(0)

    def since(self, when: float) -> list[Sample]:
        with self._lock:
            return [sample for sample in self._samples if sample.time >= when]

    def position(self) -> np.ndarray:
        with self._lock:
            return self._samples[-1].tool if self._samples else np.full(3, np.nan)

    def speed(self, window: float = 0.06) -> float:
        """Mean speed of the tool over the last `window` [m/s]."""
        samples = self.since(time.monotonic() - window)
        if len(samples) < 2:
            return 0.0
        return float(np.linalg.norm(samples[-1].tool - samples[0].tool) / (samples[-1].time - samples[0].time))

    def rest_after(self, when: float) -> tuple[float, float]:
        """(seconds from `when` until the arm was at rest and stayed so, metres it went meanwhile).

        (inf, metres) when it does not come to rest within `GIVE_UP`. Raises `RuntimeError` when it was so long ago that
        nobody remembers.
        """
        while True:
            samples = self.since(when - 0.02)
            if samples and samples[0].time > when + 0.2:
                raise RuntimeError(f"the fault came {time.monotonic() - when:.0f} s ago, the watch keeps "
                                   f"{self._keep:g} s")
            moving = _last_moving(samples)
            if samples and moving is not None and samples[-1].time - moving >= SETTLED:
                path = [s.tool for s in samples if when <= s.time <= moving + 0.011]
                return max(0.0, moving - when), _length(path)
            if time.monotonic() - when > GIVE_UP:
                return float("inf"), _length([s.tool for s in samples])
            time.sleep(0.02)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(1.0)
        self._link.close()


def _last_moving(samples: list[Sample]) -> float | None:
    """The end of the last interval in which the arm moved; the first sample's time when it never did."""
    if not samples:
        return None
    last = samples[0].time
    for before, after in itertools.pairwise(samples):
        span = after.time - before.time
        if (np.linalg.norm(after.tool - before.tool) > REST_SPEED * span
                or np.abs(after.joints - before.joints).max() > REST_JOINT_SPEED * span):
            last = after.time
    return last


def _length(path: list[np.ndarray]) -> float:
    return float(sum(np.linalg.norm(b - a) for a, b in itertools.pairwise(path)))
