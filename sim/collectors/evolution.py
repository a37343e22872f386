"""Finds the gaits: augmented random search over linear policies (Mania et al. 2018, V2-t).

    python -m sim.collectors.evolution HopperVelocity

All directions of an iteration are tried in one layout: another would tell more about the layout than about them. First
without regard to cost, keeping what it found on the way as gaits of less skill; then with each of the penalties, from
standing still, since what moves fast already does not slow down. Where steps of survival are not rewarded at first, a
penalised search goes on with them as the environment rewards them: what moves slowly then learns not to fall. In the
velocity tasks such searches leave most of the plane between return and cost empty: what pays nothing is far slower than
it may be. There each of `speeds` is held instead, from the fastest on, each found from the gait before it: what a step
is faster by counts against it, so that there is a slope to slow down on. One process; the seed fixes the result.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from safe_policy_core.errors import ConfigurationError
from sim.collectors.gait import FILE, LinearPolicy, read_gaits, write_gaits
from sim.collectors.tasks import find_task
from sim.safety_gymnasium import SafetyGymnasiumEnv

log = logging.getLogger(__name__)

RATED = 10
"""Episodes of which the recorded mean return and cost are; none of their layouts is searched in."""
STEPS_OF_BEFORE = 100_000
"""How much the statistics of a gait that was there weigh when the search goes on from it."""


@dataclass
class Evolution:
    """Augmented random search. Defaults are the published ones for these two bodies where they matter."""

    task: tyro.conf.Positional[str]
    """Of the benchmark, in Safety-Gymnasium."""

    iterations: int = 200
    """Without a penalty; each penalty then takes half of it, and as many more where `survival` was taken off."""

    snapshots: tuple[float, ...] = (0.1, 0.2, 0.7)
    """Shares of the search without a penalty after which what it has found is kept."""

    penalties: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Taken off the reward of every step with cost."""

    speeds: tuple[float, ...] = ()
    """In the velocity tasks: held one after the other [m/s], each for half of `iterations`."""

    excess: float = 3.0
    """What a step counts less for each m/s above the speed to hold; a m/s brings a reward of 1."""

    from_still: bool = False
    """The first speed is found from standing still, not from the fastest gait (without snapshots, of those that `add`
    keeps)."""

    directions: int = 8
    """Directions tried in an iteration, each forwards and backwards."""

    best: int = 4
    """Of those, how many count."""

    step: float = 0.02
    """Length of a step."""

    deviation: float = 0.03
    """Standard deviation of a direction's components."""

    layouts: int = 1
    """Layouts that each direction is tried in; more where the return depends on it, as on where goals appear."""

    survival: float = 1.0
    """Taken off the reward of every step: a bonus for merely standing would hold the Hopper in place. Not in the second
    half of a penalised search."""

    add: bool = False
    """Keeps the gaits that `out` has of this task."""

    seed: int = 0
    out: Path = Path(__file__).parent / FILE

    def run(self) -> list[LinearPolicy]:
        """Searches and writes the gaits to `out`."""
        task = find_task(self.task)
        if self.speeds and "Velocity" not in task.name:
            raise ConfigurationError(f"speeds: {task.name} has none to hold, expected a velocity task")
        self._env = SafetyGymnasiumEnv(task.env_id)
        self._rng = np.random.default_rng(self.seed)
        self._episode, self._horizon, size = RATED, task.horizon, self._env.specs.observation["vector"].shape[0]
        self._count, self._sum, self._squares = 1e-4, np.zeros(size), np.full(size, 1e-4)
        still = LinearPolicy(np.zeros((self._env.specs.action.shape[0], size + 1)), np.zeros(size), np.ones(size))
        self._gaits: list[LinearPolicy] = []
        policy = still
        if self.add:
            self._gaits += read_gaits(self._env.env_id, self.out)
        for share in self.snapshots:
            policy = self._search(policy, 0.0, round(self.iterations * share), self.survival)
            self._keep(policy, 0.0)
        fastest = policy if self.snapshots else self._fastest_of_before(still)
        for penalty in self.penalties:
            policy = still
            for survival in dict.fromkeys((self.survival, 0.0)):
                policy = self._search(policy, penalty, self.iterations // 2, survival)
                self._keep(policy, penalty)
        policy = still if self.from_still else fastest
        for speed in self.speeds:
            policy = self._search(policy, 0.0, self.iterations // 2, 0.0, speed)
            self._keep(policy, 0.0)
        self._env.close()
        return self._gaits

    def _fastest_of_before(self, still: LinearPolicy) -> LinearPolicy:
        """Of the gaits that were there, with its statistics as if they were of so many steps."""
        found = max(self._gaits, key=lambda gait: gait.reward, default=still)
        if found is not still:
            self._count, self._sum = float(STEPS_OF_BEFORE), STEPS_OF_BEFORE * found.mean
            self._squares = STEPS_OF_BEFORE * (found.deviation**2 + found.mean**2)
        return found

    def _keep(self, policy: LinearPolicy, penalty: float) -> None:
        self._gaits.append(self._rated(policy, penalty))
        write_gaits(self.out, self._env.env_id, self._gaits)  # now: a search takes many minutes

    def _search(self, policy: LinearPolicy, penalty: float, iterations: int, survival: float,
                speed: float = np.inf) -> LinearPolicy:
        for iteration in range(iterations):
            self._episode += self.layouts
            deltas = self._rng.normal(size=(self.directions, *policy.weights.shape))
            scores = np.array([[self._score(replace(policy, weights=policy.weights + sign * self.deviation * delta),
                                            penalty, survival, speed) for sign in (1, -1)] for delta in deltas])
            chosen = np.argsort(-scores.max(1))[:self.best]
            gradient = np.tensordot(scores[chosen, 0] - scores[chosen, 1], deltas[chosen], 1)
            weights = policy.weights + self.step / (self.best * scores[chosen].std() + 1e-6) * gradient
            mean = self._sum / self._count
            spread = np.sqrt(np.maximum(self._squares / self._count - mean**2, 1e-6))
            policy = LinearPolicy(weights, mean, spread)
            if iteration % 10 == 9:
                log.info("%s penalty %g speed %g iteration %d: best score %.1f", self.task, penalty, speed,
                         iteration + 1, scores.max())
        return policy

    def _score(self, policy: LinearPolicy, penalty: float, survival: float, speed: float) -> float:
        runs = [self._run(policy, self._episode + index, keep=True, speed=speed) for index in range(self.layouts)]
        return float(np.mean([reward - penalty * cost - survival * length for reward, cost, length in runs]))

    def _rated(self, policy: LinearPolicy, penalty: float) -> LinearPolicy:
        results = np.array([self._run(policy, index) for index in range(RATED)]).mean(0)
        log.info("%s penalty %g: return %.1f, cost %.1f", self.task, penalty, *results[:2])
        return replace(policy, penalty=penalty, reward=float(results[0]), cost=float(results[1]))

    def _run(self, policy: LinearPolicy, layout: int, keep: bool = False,
             speed: float = np.inf) -> tuple[float, float, int]:
        """Return, cost and length of an episode. keep: its observations go into the statistics. speed: what a step is
        faster by [m/s] is taken off `excess` times."""
        simulation = self._env.simulation
        observation, _ = self._env.reset(layout)
        vector, seen, reward, cost = observation["vector"], [], 0.0, 0.0
        for _ in range(self._horizon):
            seen.append(vector)
            # Below the wrappers, whose checks cost as much as the physics.
            vector, gained, paid, terminated, _, info = simulation.step(policy.action(vector))
            excess = max(info["x_velocity"] - speed, 0.0) if speed < np.inf else 0.0
            reward, cost = reward + gained - self.excess * excess, cost + paid
            if terminated:
                break
        if keep:
            self._count += len(seen)
            self._sum += np.sum(seen, 0)
            self._squares += np.square(seen).sum(0)
        return reward, cost, len(seen)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tyro.cli(Evolution).run()
