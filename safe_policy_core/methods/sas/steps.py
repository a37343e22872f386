"""Courses of some steps, imagined or recorded."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Steps(NamedTuple):
    """N courses of T steps as the networks take them.

    states (N, T, inputs), actions (N, T, action_dim), to_go (N, T, 2): return and cost.
    """

    states: Tensor
    actions: Tensor
    to_go: Tensor

    def part(self, course: int, begin: int, end: int) -> Steps:
        """Some steps of one course, (1, end - begin, ...)."""
        return Steps(*(value[course:course + 1, begin:end] for value in self))

    def expand(self, courses: int) -> Steps:
        """One course as many."""
        return Steps(*(value.expand(courses, *value.shape[1:]) for value in self))

    @classmethod
    def concatenate(cls, parts: list[Steps]) -> Steps:
        """One after the other."""
        return cls(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))
