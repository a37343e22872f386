"""The variational contrastive log-ratio upper bound of I(z; r) with a ten-class q(r | z) (DSPO eq. 4 and appendix D.1).

q is trained by the likelihood of *paired* data, E_{p(z, r)}[log q(r | z)], which is what minimising eq. 5 over
theta means. The sentence after eq. 5 has the product of the marginals instead; it is a slip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.networks.linear import Linear


class ReturnClassifier(nn.Module):
    """q(r | z): (B,) signals -> (B, bins) log probabilities of equal parts of the returns' range.

    It sees the signal's logit: the mutual information is the same, and a saturated sigmoid hides nothing.
    """

    low: Tensor
    high: Tensor

    def __init__(self, bins: int, units: int) -> None:
        super().__init__()
        self.bins = bins
        self.layers = nn.Sequential(Linear(1, units), nn.ReLU(), Linear(units, units), nn.ReLU(),
                                    Linear(units, bins))
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.ones(()))

    def fit_range(self, low: float, high: float) -> None:
        """Lowest and highest return in the data."""
        self.low.fill_(low)
        self.high.fill_(high)

    def classes(self, returns: Tensor) -> Tensor:
        """(B,) returns -> (B,) int64 bins; returns outside the range belong to the outer ones."""
        position = (returns - self.low) / (self.high - self.low).clamp(min=1e-6) * self.bins
        return position.long().clamp(0, self.bins - 1)

    def forward(self, logit: Tensor) -> Tensor:
        return self.layers(logit.unsqueeze(-1)).log_softmax(-1)


def likelihood_loss(log_q: Tensor, classes: Tensor) -> Tensor:
    """-E_{p(z, r)}[log q(r | z)] of paired (B, bins) log probabilities and (B,) classes."""
    return functional.nll_loss(log_q, classes)


def vclub(log_q: Tensor, classes: Tensor) -> Tensor:
    """Eq. 4: E_{p(z, r)}[log q(r | z)] - E_{p(z)} E_{p(r)}[log q(r | z)].

    log_q: (B, bins) for B signals. classes: (B,) of their returns. The second term takes all B x B pairs.
    """
    paired = log_q.gather(-1, classes.unsqueeze(-1)).mean()
    crossed = log_q.gather(-1, classes.expand(len(log_q), -1)).mean()
    return paired - crossed
