"""Acting by the table's map: dynamic programming over places instead of draws of imagined courses.

Not in the paper, which acts with the actor's own draw (eq. 21 chooses between two). An actor that imitates
demonstrators who touched obstacles goes on touching them in scenes with more of them: one Gaussian cannot say "left or
right of it, but not through it". Over the table the model is simple enough to be solved: the tool goes where it is
told, and `vision.TableMap` has learned where it would touch what. The reach-avoid value of a place,

    V(x) = (1 - c(x))^rho (a(x) + (1 - a(x)) max_y (1 - c(x, y))^rho gamma^(|y - x| / step) V(y)),

with contact probability c, that of what is passed between two cells c(x, y), arrival probability a and the step's
length, is the discounted probability of touching the target before an obstacle; rho above 1 counts a contact as that
many. It is Fisac et al.'s reachability with a goal.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from safe_policy_core.errors import ConfigurationError

_NEIGHBOURS = tuple((x, y) for x in range(-2, 3) for y in range(-2, 3) if gcd(x, y) == 1)
"""Cells that a path may go on to: 16 directions."""
_SWEEPS = 200
_DOUBLINGS = 8
_TOLERANCE = 1e-4
_BELIEVED = 0.05
"""Smaller arrival probabilities are not worth solving the map again."""
_ARRIVED = 0.5
"""Where arrival is as likely, the way has come to its end."""
_HERE = 0.1
"""Share of a step that is no step."""
_AS_GOOD = 0.99
"""Share of the best value with which a longer step is preferred."""


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


def ways(contact: np.ndarray, cell: tuple[float, float], step: float, discount: float, risk: float) -> np.ndarray:
    """(16, Y, X) what is left of a value on the way from each cell to each of its neighbours: time is lost, and the two
    cells that it leads between may be touched. contact: (Y, X) probabilities. cell, step: sides, length [m]."""
    padded, left = np.pad(contact, 2).astype(np.float32), []
    for x, y in _NEIGHBOURS:
        sides = ((x, 0), (0, y)) if abs(x) == abs(y) else ((int(x / 2), int(y / 2)), (np.sign(x), np.sign(y)))
        first, second = (_shifted(padded, *side) for side in sides)
        passed = (first + second) / 2 if x and y else np.zeros_like(first)
        left.append(discount ** (np.hypot(x * cell[0], y * cell[1]) / step) * (1 - passed) ** risk)
    return np.stack(left).astype(np.float32)


def _shifted(padded: np.ndarray, x: int, y: int) -> np.ndarray:
    """View of a table with a border of 2, from each cell x to the right and y up."""
    height, width = padded.shape[0] - 4, padded.shape[1] - 4
    return padded[2 + y:2 + y + height, 2 + x:2 + x + width]


def reach_avoid_values(contact: np.ndarray, arrival: np.ndarray, left: np.ndarray, risk: float) -> np.ndarray:
    """(Y, X) values of V by value iteration. contact, arrival: (Y, X) probabilities. left: `ways`."""
    spared = ((1 - contact) ** risk).astype(np.float32)
    # Whole rows with a border, one after the other: a neighbour is an offset, and a sweep takes a third less time than
    # by views of the table. Nothing leads from the border's own cells, whose values stay 0.
    tables = np.concatenate([left, [spared * arrival.astype(np.float32), spared * (1 - arrival).astype(np.float32)]])
    *factors, base, going_on = np.pad(tables, ((0, 0), (2, 2), (2, 2))).reshape(len(tables), -1)
    width = contact.shape[1] + 4
    inner = slice(2 * width + 2, base.size - 2 * width - 2)
    values, best, other = base.copy(), np.empty_like(base[inner]), np.empty_like(base[inner])
    known, base, going_on = values[inner], base[inner], going_on[inner]
    views = [(values[inner.start + x + y * width:inner.stop + x + y * width], factor[inner])
             for (x, y), factor in zip(_NEIGHBOURS, factors, strict=True)]
    for _ in range(_SWEEPS):
        best.fill(0)
        for view, factor in views:
            np.maximum(best, np.multiply(view, factor, out=other), out=best)
        np.add(base, np.multiply(going_on, best, out=best), out=best)
        change = np.subtract(best, known, out=other).max()  # they only rise
        known[:] = best
        if change < _TOLERANCE:
            break
    return values.reshape(-1, width)[2:-2, 2:-2].astype(float)


def best_neighbours(values: np.ndarray, left: np.ndarray) -> np.ndarray:
    """(Y X,) the cell, counted along x and then y, that the value iteration goes on to from each."""
    padded = np.pad(values, 2, constant_values=-1.0)
    ahead = np.stack([_shifted(padded, *neighbour) for neighbour in _NEIGHBOURS]) * left
    steps = np.array(_NEIGHBOURS)[ahead.argmax(0)]
    rows, columns = np.indices(values.shape)
    return ((rows + steps[..., 1]) * values.shape[1] + columns + steps[..., 0]).ravel()


def violation_probabilities(following: np.ndarray, contact: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """(Y, X) probabilities of a contact before the target on the way of `following`, undiscounted; rho is 1 here.

    p(x) = 1 - (1 - c(x)) (a(x) + (1 - a(x)) (1 - p(y))) with y the cell that `best_neighbours` goes on to. What
    follows two cells is what follows the second after the first, so that every turn here doubles how far is looked.
    """
    spared, arrived = (1 - contact).ravel(), arrival.ravel()
    ended, goes_on = spared * arrived, spared * (1 - arrived)
    for _ in range(_DOUBLINGS):
        ended, goes_on = ended + goes_on * ended[following], goes_on * goes_on[following]
        following = following[following]
    return 1 - (ended + goes_on).reshape(contact.shape)


def _logit(probability: np.ndarray | float) -> np.ndarray:
    bounded = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(bounded / (1 - bounded))


class ReachAvoid:
    """One episode's map, solved. contact, arrival: (cells, cells), rows along y. low, high: corners x, y [m]."""

    def __init__(self, contact: np.ndarray, arrival: np.ndarray, low: tuple[float, float], high: tuple[float, float],
                 step: float, discount: float, config: ReachAvoidConfig) -> None:
        """step: what an action of 1 moves [m]."""
        self.contact, self.arrival = np.asarray(contact, float), np.array(arrival, float)
        self._low, self._high = np.array(low), np.array(high)
        self._shape = np.array(self.contact.shape[::-1])
        self._per_metre = self._shape / (self._high - self._low)
        self._length, self._discount, self._config = step, discount, config
        self.values = self.violations = self._following = np.zeros(())
        """(cells, cells) reach-avoid values and violation probabilities."""
        rows, columns = np.indices(self.contact.shape)
        self._centres = self._low + (np.stack([columns, rows], -1) + 0.5) / self._shape * (self._high - self._low)
        width, height = (self._high - self._low) / self._shape
        self._left = ways(self.contact, (width, height), step, discount, config.risk)
        self._solve()

    @property
    def corners(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lowest and highest x, y [m]."""
        return (self._low[0], self._low[1]), (self._high[0], self._high[1])

    def _solve(self) -> None:
        self.values = reach_avoid_values(self.contact, self.arrival, self._left, self._config.risk)
        self._following = best_neighbours(self.values, self._left)
        self.violations = violation_probabilities(self._following, self.contact, self.arrival)

    def violation_probability(self, tool: np.ndarray) -> float:
        """Of a contact before the target on the map's way from `tool` (2,) [m]."""
        return float(self._at(self.violations, np.asarray(tool, float)[None])[0])

    def stand_at(self, tool: np.ndarray) -> None:
        """Takes into account that the tool is at (2,) [m] and the episode goes on: that is no place of arrival.

        A map that was too generous there is so all around the target: the other places lose as much of their log
        odds, or the tool would try the whole rim before it went further in. The best place stays as likely as not.
        """
        near = np.linalg.norm(self._centres - tool, axis=-1) < self._config.refuted
        if not (self.arrival[near] > _BELIEVED).any():
            return
        generous = _logit(self._at(self.arrival, tool[None])[0]) - _logit(_BELIEVED)
        self.arrival[near] = 0.0
        logits = _logit(self.arrival)
        self.arrival = 1 / (1 + np.exp(-(logits - min(max(generous, 0.0), max(logits.max(), 0.0)))))
        self._solve()

    def step(self, place: np.ndarray, action: np.ndarray) -> np.ndarray | None:
        """The map's step (2,) from `place` (2,) [m]; None where the policy's own `action` (2,) is as good.

        Rest where no way promises anything: none is seen, and the arm waits for the episode's end.
        """
        way = self._way(place)
        ahead = np.linalg.norm(way - place, axis=-1)
        scores = self._discount ** (ahead / self._length) * self._promise(place, way)
        if scores.max() < self._config.hopeless:
            return np.zeros(2)
        chosen = np.flatnonzero(scores >= _AS_GOOD * scores.max())[-1]
        end = np.clip(place + self._length * np.asarray(action, float), self._low, self._high)
        if self._discount * self._promise(place, end[None])[0] >= (1 - self._config.deference) * scores[chosen]:
            return None
        return (way[chosen] - place) / max(self._length, ahead[chosen])

    def _way(self, place: np.ndarray) -> np.ndarray:
        """(N, 2) [m] the cells' centres on the value iteration's own way from `place` (2,), a step far: it goes where
        the values say, while steps that were compared by values between the centres waited at their crests."""
        corner = self._corner(place[None])[0][0]
        around = [corner[0] + x + (corner[1] + y) * self._shape[0] for x in range(2) for y in range(2)]
        centres, arrival = self._centres.reshape(-1, 2), self.arrival.ravel()
        scores = self._discount ** (np.linalg.norm(centres[around] - place, axis=-1) / self._length)
        way = [around[int((scores * self._promise(place, centres[around])).argmax())]]
        while arrival[way[-1]] < _ARRIVED and np.linalg.norm(centres[way[-1]] - place) < self._length \
                and len(way) < _SWEEPS and self._following[way[-1]] not in way:
            way.append(self._following[way[-1]])
        here = np.linalg.norm(centres[way[0]] - place) < _HERE * self._length
        return centres[way[1:] if here and len(way) > 1 else way]

    def _promise(self, place: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(N,) values of `ends` (N, 2) [m], not discounted; contacts half way to them are counted too."""
        return (1 - self._at(self.contact, (place + ends) / 2)) ** self._config.risk * self._at(self.values, ends)

    def _corner(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) places -> the cell to the lower left, and how far beyond its centre they are in cells."""
        cells = np.minimum(np.maximum((places - self._low) * self._per_metre - 0.5, 0), self._shape - 1)
        corner = np.minimum(cells.astype(int), self._shape - 2)
        return corner, cells - corner

    def _at(self, table: np.ndarray, places: np.ndarray) -> np.ndarray:
        """`table` at (N, 2) places x, y [m], between the cells' centres linearly, beyond them as at the border."""
        corner, beyond = self._corner(places)
        right, up = beyond.T
        width = table.shape[1]
        left_lower = corner[:, 0] + corner[:, 1] * width
        here, beside, above, across = table.ravel().take(left_lower + np.array([[0], [1], [width], [width + 1]]))
        return (1 - up) * ((1 - right) * here + right * beside) + up * ((1 - right) * above + right * across)
