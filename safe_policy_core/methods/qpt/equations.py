"""QPT's equations on tensors: n-step targets, the choice among candidates, and what a cost threshold is for values."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor


def n_step_targets(received: Tensor, bootstrap: Tensor, last: Tensor, terminal: Tensor, discount: float
                   ) -> tuple[Tensor, Tensor]:
    """Targets of eq. 6 and 7 for every step of a window, and which of them count.

    received: (..., B, K) rewards or costs, padding on the right. bootstrap: (..., B), the value of the
    target policy's action at s_t. last: (B,) int64, the index t of each window's last step. terminal: (B,)
    bool, whether the episode ended there by termination. Returns (..., B, K) and (B, K) bool.

    The equations end at t - 1 and so never see an episode's last step. Where it is terminal nothing
    follows it: its target is what it received, and the steps before it sum up to it.
    """
    value, targets = torch.zeros_like(bootstrap), []
    for step in range(received.shape[-1] - 1, -1, -1):
        now = received[..., step]
        at_end = torch.where(terminal, now, bootstrap)
        value = torch.where(last == step, at_end, now + discount * value)
        targets.append(value)
    steps = torch.arange(received.shape[-1], device=last.device)
    return torch.stack(targets[::-1], -1), steps < (last + terminal.long()).unsqueeze(-1)


Number = TypeVar("Number", float, Tensor)


def discounted_budget(remaining: Number, steps_left: Number, discount: float) -> Number:
    """An undiscounted cost to go as the discounted value that eq. 14 compares with; numbers, or tensors of one shape.

    Spread evenly over the steps left, at least 1: remaining / n * (1 + discount + ... + discount^(n - 1)).
    """
    if discount == 1:
        return remaining
    steps_left = steps_left.clamp(min=1) if isinstance(steps_left, Tensor) else max(steps_left, 1.0)
    return remaining / steps_left * (1 - discount**steps_left) / (1 - discount)


def choose(value: Tensor, cost_value: Tensor, budget: float) -> tuple[int, bool]:
    """The candidate with the highest value among those within the budget (eq. 13 and 14); value, cost_value: (N,).

    Where none is, the one with the lowest cost value, and False.
    """
    within = cost_value <= budget
    if not bool(within.any()):
        return int(cost_value.argmin()), False
    return int(value.masked_fill(~within, -torch.inf).argmax()), True
