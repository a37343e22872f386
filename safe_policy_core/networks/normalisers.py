"""Running statistics: the scale of returns, and the mean and deviation of vector observations."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PercentileScale(nn.Module):
    """Range between the 5th and the 95th percentile, smoothed with rate 0.99, never below `minimum` (DreamerV3).

    Dividing by it leaves small returns as they are and keeps large ones within a few units.
    """

    low: Tensor
    high: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.99, minimum: float = 1.0, percentiles: tuple[float, float] = (0.05, 0.95)
                 ) -> None:
        super().__init__()
        self.decay, self.minimum, self.percentiles = decay, minimum, percentiles
        for name in ("low", "high", "updates"):
            self.register_buffer(name, torch.zeros(()))

    def update(self, values: Tensor) -> None:
        """Takes in a batch of numbers of any shape. The average starts at the first batch, not at zero."""
        low, high = torch.quantile(values.detach().flatten(), torch.tensor(self.percentiles, device=values.device))
        keep = self.decay if self.updates.item() else 0.0
        self.low.mul_(keep).add_(low, alpha=1 - keep)
        self.high.mul_(keep).add_(high, alpha=1 - keep)
        self.updates += 1

    def scale(self) -> Tensor:
        """A number >= `minimum`."""
        return (self.high - self.low).clamp(min=self.minimum)


class Standardiser(nn.Module):
    """(x - mean) / deviation for a vector observation, measured over the first batches and then frozen.

    A pose varies by centimetres around half a metre; symlog alone would leave 1 cm as a hundredth
    of a unit, and the model would not see it. The statistics are buffers, so they travel with the
    checkpoint. `floor` (in the vector's units) keeps an element that never moved in the data
    from being blown up by its noise.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, size: int, batches: int = 50, floor: float = 0.01) -> None:
        super().__init__()
        self.limit, self.floor = batches, floor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("batches", torch.zeros(()))

    def update(self, values: Tensor) -> None:
        """Takes in (..., size) values; does nothing once `limit` batches were seen."""
        seen = self.batches.item()
        if seen >= self.limit:
            return
        flat = values.detach().reshape(-1, values.shape[-1])
        mean, variance = flat.mean(0), flat.var(0, unbiased=False)
        share = 1 / (seen + 1)
        # Pooled variance of what was seen and the new batch; the first batch replaces the initial values.
        difference = (mean - self.mean) * (seen > 0)
        self.variance.copy_((1 - share) * self.variance + share * variance + share * (1 - share) * difference.square())
        self.mean.copy_((1 - share) * self.mean + share * mean)
        self.batches += 1

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.variance.sqrt().clamp(min=self.floor)

    def inverse(self, values: Tensor) -> Tensor:
        """Back to the observation's units."""
        return values * self.variance.sqrt().clamp(min=self.floor) + self.mean
