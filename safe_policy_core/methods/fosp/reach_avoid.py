"""Acting by the table's map: dynamic programming over places instead of draws of imagined courses.

Not in the paper, which acts with the actor's own draw (eq. 21 chooses between two). An actor that imitates
demonstrators who touched obstacles goes on touching them in scenes with more of them: one Gaussian cannot say "left or
right of it, but not through it". Over the table the model is simple enough to be solved: the tool goes where it is
told, and `vision.TableMap` has learned where it would touch what. The reach-avoid value of a place,

    V(x) = (1 - c(x))^rho (a(x) + (1 - a(x)) max_y gamma^(|y - x| / step) V(y)),

with contact probability c, arrival probability a and the step's length, is the discounted probability of touching the
target before an obstacle; rho above 1 counts a contact as that many. It is Fisac et al.'s reachability with a goal.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from safe_policy_core.errors import ConfigurationError

_NEIGHBOURS = tuple((x, y) for x in range(-2, 3) for y in range(-2, 3) if gcd(x, y) == 1)
"""Cells that a path may go on to: 16 directions."""
_SWEEPS = 200
_TOLERANCE = 1e-4
_DIRECTIONS = 48
_BELIEVED = 0.05
"""Smaller arrival probabilities are not worth solving the map again."""
_LENGTHS = (1.0, 0.5)
"""Steps that are compared, as shares of the longest."""


@dataclass(frozen=True)
class ReachAvoidConfig:
    """How the map is acted on."""

    risk: float = 5.0
    """Rho: as how many contacts one is counted."""
    deference: float = 0.0
    """The actor's own step is taken where its value is at least 1 - deference of the best step's."""
    refuted: float = 0.01
    """Where the tool was without arriving, nothing within this is taken for a place of arrival any more [m]."""
    hopeless: float = 0.01
    """Where no step has this value the tool rests."""

    def __post_init__(self) -> None:
        if self.risk < 1:
            raise ConfigurationError(f"reach_avoid.risk: expected at least 1, got {self.risk}")
        if not 0 <= self.deference < 1:
            raise ConfigurationError(f"reach_avoid.deference: expected at least 0 and below 1, got {self.deference}")


def reach_avoid_values(contact: np.ndarray, arrival: np.ndarray, cell: tuple[float, float], step: float,
                       discount: float, risk: float) -> np.ndarray:
    """(Y, X) values of V by value iteration. contact, arrival: (Y, X) probabilities. cell, step: sides, length [m]."""
    spared = ((1 - contact) ** risk).astype(np.float32)
    base, going_on = spared * arrival.astype(np.float32), spared * (1 - arrival).astype(np.float32)
    factors = [np.float32(discount ** (np.hypot(x * cell[0], y * cell[1]) / step)) for x, y in _NEIGHBOURS]
    padded = np.pad(base, 2)
    height, width = base.shape
    views = [padded[2 + y:2 + y + height, 2 + x:2 + x + width] for x, y in _NEIGHBOURS]
    values, best, other = padded[2:-2, 2:-2], np.empty_like(base), np.empty_like(base)
    for _ in range(_SWEEPS):
        best.fill(0)
        for view, factor in zip(views, factors, strict=True):
            np.maximum(best, np.multiply(view, factor, out=other), out=best)
        np.add(base, np.multiply(going_on, best, out=best), out=best)
        change = np.abs(best - values).max()
        values[:] = best
        if change < _TOLERANCE:
            break
    return values.astype(float)


def violation_probabilities(values: np.ndarray, contact: np.ndarray, arrival: np.ndarray, cell: tuple[float, float],
                            step: float, discount: float) -> np.ndarray:
    """(Y, X) probabilities of a contact before the target on the way that `values` lead, undiscounted; rho is 1 here.

    p(x) = 1 - (1 - c(x)) (a(x) + (1 - a(x)) (1 - p(y))) with y the neighbour that the value iteration goes on to.
    """
    height, width = values.shape
    padded = np.pad(values, 2, constant_values=-1.0)
    ahead = np.stack([discount ** (np.hypot(x * cell[0], y * cell[1]) / step)
                      * padded[2 + y:2 + y + height, 2 + x:2 + x + width] for x, y in _NEIGHBOURS])
    steps = np.array(_NEIGHBOURS)[ahead.argmax(0)]
    rows, columns = np.indices(values.shape)
    following = ((rows + steps[..., 1]) * width + columns + steps[..., 0]).ravel()
    spared, arrived = (1 - contact).ravel(), arrival.ravel()
    safe = np.ones(values.size)
    for _ in range(_SWEEPS):
        before, safe = safe, spared * (arrived + (1 - arrived) * safe[following])
        if np.abs(safe - before).max() < _TOLERANCE:
            break
    return 1 - safe.reshape(values.shape)


class ReachAvoid:
    """One episode's map, solved. contact, arrival: (cells, cells), rows along y. low, high: corners x, y [m]."""

    def __init__(self, contact: np.ndarray, arrival: np.ndarray, low: tuple[float, float], high: tuple[float, float],
                 step: float, discount: float, config: ReachAvoidConfig) -> None:
        """step: what an action of 1 moves [m]."""
        self.contact, self.arrival = np.asarray(contact, float), np.array(arrival, float)
        self._low, self._high = np.array(low), np.array(high)
        self._shape = np.array(self.contact.shape[::-1])
        self._length, self._discount, self._config = step, discount, config
        self.values = self.violations = np.zeros(())
        """(cells, cells) reach-avoid values and violation probabilities."""
        rows, columns = np.indices(self.contact.shape)
        self._centres = self._low + (np.stack([columns, rows], -1) + 0.5) / self._shape * (self._high - self._low)
        self._solve()
        angles = np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS
        circle = np.stack([np.cos(angles), np.sin(angles)], -1)
        self.steps = np.concatenate([*(length * circle for length in _LENGTHS), np.zeros((1, 2))])
        """(N, 2) x and y of the actions that are compared; the last is rest."""

    @property
    def corners(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lowest and highest x, y [m]."""
        return (self._low[0], self._low[1]), (self._high[0], self._high[1])

    def _solve(self) -> None:
        width, height = (self._high - self._low) / self._shape
        self.values = reach_avoid_values(self.contact, self.arrival, (width, height), self._length, self._discount,
                                         self._config.risk)
        self.violations = violation_probabilities(self.values, self.contact, self.arrival, (width, height),
                                                  self._length, self._discount)

    def violation_probability(self, tool: np.ndarray) -> float:
        """Of a contact before the target on the map's way from `tool` (2,) [m]."""
        return float(self._at(self.violations, np.asarray(tool, float)[None])[0])

    def stand_at(self, tool: np.ndarray) -> None:
        """Takes into account that the tool is at (2,) [m] and the episode goes on: that is no place of arrival."""
        if self._at(self.arrival, tool[None])[0] > _BELIEVED:
            self.arrival[np.linalg.norm(self._centres - tool, axis=-1) < self._config.refuted] = 0.0
            self._solve()

    def step(self, tool: np.ndarray, action: np.ndarray) -> np.ndarray | None:
        """The best step (2,) from `tool` (2,) [m]; None where the policy's own `action` (2,) is as good.

        Rest where no step promises anything: no way is seen, and the arm waits for the episode's end.
        """
        scores = self.scores(tool, np.concatenate([self.steps, np.asarray(action, float)[None]]))
        best, own = scores[:-1].max(), scores[-1]
        if best < self._config.hopeless:
            return self.steps[-1]
        return None if own >= (1 - self._config.deference) * best else self.steps[scores[:-1].argmax()]

    def scores(self, tool: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(N,) values of going from `tool` (2,) [m] by actions (N, 2) in [-1, 1]; half way is looked at too."""
        ends = np.clip(tool + self._length * np.asarray(actions, float), self._low, self._high)
        spared = (1 - self._at(self.contact, (tool + ends) / 2)) ** self._config.risk
        return self._discount * spared * self._at(self.values, ends)

    def _at(self, table: np.ndarray, places: np.ndarray) -> np.ndarray:
        """`table` at (N, 2) places x, y [m], between the cells' centres linearly, beyond them as at the border."""
        cells = np.clip((places - self._low) / (self._high - self._low) * self._shape - 0.5, 0, self._shape - 1)
        corner = np.minimum(cells.astype(int), self._shape - 2)
        (x, y), (right, up) = corner.T, (cells - corner).T
        return (1 - up) * ((1 - right) * table[y, x] + right * table[y, x + 1]) \
            + up * ((1 - right) * table[y + 1, x] + right * table[y + 1, x + 1])
