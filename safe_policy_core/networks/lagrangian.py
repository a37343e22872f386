"""Multipliers for a constraint g <= 0: the augmented Lagrangian of FOSP, and a PID controller."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AugmentedLagrangian(nn.Module):
    """Penalty with multiplier lambda_p and penalty factor mu (FOSP eq. 17, 26 and 27; As et al. 2022).

    mu grows by (1 + growth) at every update and is clipped to [0, 1].
    """

    multiplier: Tensor
    penalty: Tensor

    def __init__(self, multiplier: float = 0.01, penalty: float = 1e-6, growth: float = 5e-9) -> None:
        super().__init__()
        self.growth = growth
        # float64: 1 + 5e-9 is 1 in float32, and mu would never grow.
        self.register_buffer("multiplier", torch.tensor(multiplier, dtype=torch.float64))
        self.register_buffer("penalty", torch.tensor(penalty, dtype=torch.float64))

    def phi(self, constraint: Tensor) -> Tensor:
        """Eq. 17, elementwise: lambda g + mu/4 g^2 where lambda + mu/2 g >= 0, else -lambda^2 / mu."""
        multiplier, penalty = self.multiplier.to(constraint.dtype), self.penalty.to(constraint.dtype)
        active = multiplier + penalty / 2 * constraint >= 0
        inside = multiplier * constraint + penalty / 4 * constraint.square()
        return torch.where(active, inside, -multiplier.square() / penalty)

    def update(self, constraint: Tensor) -> None:
        """Eq. 27 with the mean of `constraint`: lambda <- max(0, lambda + mu/2 g); then mu grows."""
        self.multiplier.copy_((self.multiplier + self.penalty / 2 * constraint.detach().mean()).clamp(min=0))
        self.penalty.mul_(1 + self.growth).clamp_(0, 1)


class PidLagrangian(nn.Module):
    """The multiplier as a PID controller of the constraint (Stooke et al. 2020, algorithm 2).

    gains: proportional, integral and derivative. The integral and the derivative part never fall below zero.
    """

    multiplier: Tensor
    integral: Tensor
    previous: Tensor

    def __init__(self, gains: tuple[float, float, float]) -> None:
        super().__init__()
        self.gains = gains
        for name in ("multiplier", "integral", "previous"):
            self.register_buffer(name, torch.zeros(()))

    @torch.no_grad()
    def update(self, constraint: Tensor) -> None:
        """Takes in the mean of `constraint`; `multiplier` is the controller's new output."""
        proportional, integral, derivative = self.gains
        error = constraint.mean()
        self.integral.copy_((self.integral + error).clamp(min=0))
        self.multiplier.copy_((proportional * error + integral * self.integral
                               + derivative * (error - self.previous).clamp(min=0)).clamp(min=0))
        self.previous.copy_(error)
