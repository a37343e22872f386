"""symlog and the two-hot encoding of DreamerV3 (Hafner et al. 2023, sections "Symlog predictions")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BINS, LOW, HIGH = 255, -20.0, 20.0
"""Two-hot bins: 255, evenly spaced in symlog space."""


def symlog(value: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|), elementwise."""
    return value.sign() * value.abs().log1p()


def symexp(value: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return value.sign() * value.abs().expm1()


class TwoHot(nn.Module):
    """A number as a categorical over evenly spaced bins in symlog space.

    The mean is symexp of the expected bin, as in the first DreamerV3: exact for a number that the
    state determines, slightly low for a random one (a 0/1 variable of probability p reads 2^p - 1).
    """

    bins: Tensor

    def __init__(self, bins: int = BINS, low: float = LOW, high: float = HIGH) -> None:
        super().__init__()
        self.low, self.step = low, (high - low) / (bins - 1)
        self.register_buffer("bins", torch.linspace(low, high, bins), persistent=False)

    def encode(self, value: Tensor) -> Tensor:
        """(...) numbers -> (..., bins) weights on the two neighbouring bins, sum 1. Clipped to the bins' range."""
        position = ((symlog(value) - self.low) / self.step).clamp(0, len(self.bins) - 1)
        lower = position.floor().clamp(max=len(self.bins) - 2)
        upper_weight = (position - lower).unsqueeze(-1)
        index = lower.long().unsqueeze(-1)
        encoded = torch.zeros(*value.shape, len(self.bins), dtype=value.dtype, device=value.device)
        encoded.scatter_(-1, index, 1 - upper_weight)
        return encoded.scatter_(-1, index + 1, upper_weight)

    def mean(self, logits: Tensor) -> Tensor:
        """(..., bins) logits -> (...) numbers, with gradient."""
        return symexp((logits.softmax(-1) * self.bins).sum(-1))

    def negative_log_likelihood(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of the encoded (...) target under (..., bins) logits -> (...)."""
        position = ((symlog(target) - self.low) / self.step).clamp(0, len(self.bins) - 1)
        lower = position.floor().clamp(max=len(self.bins) - 2)
        weight = position - lower
        index = lower.long().unsqueeze(-1)
        # Two gathers instead of a dense product: most of the encoding is zero.
        at_lower = logits.gather(-1, index).squeeze(-1)
        at_upper = logits.gather(-1, index + 1).squeeze(-1)
        return logits.logsumexp(-1) - (1 - weight) * at_lower - weight * at_upper
