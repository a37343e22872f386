"""What the discriminators of one training say of trajectories, and what becomes of it: a signal, and attention."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from safe_policy_core.methods.dspo.trajectories import Trajectories
from safe_policy_core.world_model.observation import split_specs

_SMALLEST_SPREAD = 1e-6
ALL = -1
"""In the place of a discriminator's number: the average of all."""


@dataclass(frozen=True)
class Judgements:
    """P pieces of E trajectories with N steps, judged by M discriminators, each by itself.

    logits: (P, M). attention: (N, M), how much each step mattered in its piece; the steps of a piece sum to 1.
    episode: (P,) trajectory of each piece. piece: (N,) piece of each step. starts: (E + 1,) first steps, then N.
    """

    logits: np.ndarray
    attention: np.ndarray
    episode: np.ndarray
    piece: np.ndarray
    starts: np.ndarray

    @property
    def _share(self) -> np.ndarray:
        """(P, 1), what part of its trajectory's steps a piece is."""
        return (np.bincount(self.piece) / np.diff(self.starts)[self.episode])[:, None]

    def scale(self, fold: np.ndarray, safe: np.ndarray) -> np.ndarray:
        """(M, 2) zero and unit of each discriminator: mean and deviation of its logits of D^U, as far as unseen by it.

        fold: (E,) the one that has not seen a trajectory. safe: (E,). With one discriminator, 0 and 1.
        """
        members = self.logits.shape[1]
        if members == 1:
            return np.array([[0.0, 1.0]])
        whole = _sums(self._share * self.logits, self.episode, len(fold))
        judged = [whole[(fold == number) & ~safe, number] for number in range(members)]
        return np.array([[logits.mean(), max(logits.std(), _SMALLEST_SPREAD)] for logits in judged])

    def told(self, fold: np.ndarray, scale: np.ndarray | None = None) -> list[tuple[float, np.ndarray]]:
        """(z, attention of each step, sum 1) of every trajectory.

        fold: (E,) the discriminator that judges it, or `ALL`. scale: (M, 2) of the logits, see `scale`; None: as they
        are. z is the sigmoid of the mean over pieces, by their lengths.

        Attention within a piece is the discriminator's. Each piece by itself gives all of it away, whatever it is like;
        so a piece gets of the trajectory's in proportion to its steps times 1 - z of the piece alone, the probability
        that it is not safe: what speaks against the trajectory stands out.
        """
        count, members = len(self.starts) - 1, self.logits.shape[1]
        zero, unit = (np.zeros(members), np.ones(members)) if scale is None else scale.T
        logits = (self.logits - zero) / unit
        voices = np.where((fold == ALL)[:, None], 1 / members, fold[:, None] == np.arange(members))
        whole = (_sums(self._share * logits, self.episode, count) * voices).sum(1)
        # log of share * (1 - sigmoid), less the largest of the trajectory: none is lost where all are safe for certain.
        against = np.log(self._share) - np.logaddexp(0, logits)
        largest = np.full((count, members), -np.inf)
        np.maximum.at(largest, self.episode, against)
        against = np.exp(against - largest[self.episode])
        against /= _sums(against, self.episode, count)[self.episode]
        attention = (voices[self.episode[self.piece]] * against[self.piece] * self.attention).sum(1)
        return [(float(1 / (1 + np.exp(-logit))), attention[begin:end]) for logit, begin, end in
                zip(whole, self.starts[:-1], self.starts[1:], strict=True)]


def identities(trajectories: Trajectories) -> list[str]:
    """What trajectories are known by, whatever their files are called: SHA-256 of executed actions and vectors, hex.

    Pictures are left out: their components come out otherwise in the last bits beside other pictures.
    """
    vectors = sum(spec.shape[0] for spec in split_specs(trajectories.specs.observation)[1].values())
    rows = np.concatenate([trajectories.actions, trajectories.states[:, :vectors]], 1, dtype=np.float32)
    return [hashlib.sha256(rows[begin:end].tobytes()).hexdigest() for begin, end in
            zip(trajectories.starts[:-1], trajectories.starts[1:], strict=True)]


def _sums(values: np.ndarray, episode: np.ndarray, count: int) -> np.ndarray:
    """(P, M) -> (count, M) sums over the pieces of each trajectory."""
    found = np.zeros((count, values.shape[1]))
    np.add.at(found, episode, values)
    return found
