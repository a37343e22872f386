"""Linear layers by oneDNN where its matrix product is the faster one: on AMD's processors.

PyTorch multiplies float32 matrices by MKL, which reaches half of such a processor. oneDNN, which PyTorch carries for
its convolutions, has AVX-512 kernels for it: on an EPYC core 220 against 104 GFLOP/s at (512, 1024) x (1024, 1536), and
the products of the backward pass as well. On Intel's processors nothing was measured and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

WORTHWHILE, WITHOUT_GRADIENTS = 2**22, 2**20
"""Multiplications from which on oneDNN wins, the calls through Python included: 64 rows of 256 to 256."""


@cache
def _product() -> Any:
    """oneDNN's x W^T + b, or None where MKL's is as good or there is no oneDNN.

    The operator is the one that `torch.compile` uses; PyTorch does not document it.
    """
    processor = Path("/proc/cpuinfo")
    if not torch.backends.mkldnn.is_available() or not processor.exists():
        return None
    if "AuthenticAMD" not in processor.read_text() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """(N, O), (N, I) -> left^T right (O, I).

    PyTorch copies the transposed first operand, oneDNN takes the second one as it is: the smaller comes first (with 512
    and 128 columns 3.1 ms for 5.1). Rows that are apart in memory would fall back to a loop: 120 ms for 0.1.
    """
    if left.shape[1] > right.shape[1]:
        return linear(right.T, left.contiguous().T).T
    return linear(left.T, right.contiguous().T)


class _ToWeights(torch.autograd.Function):
    """(O, I), (O,), (N, I) -> (N, O) nothing at all, whose gradient is that of the layer's output.

    A node of its own: `torch.autograd.grad` leaves out nodes that nobody asked for, not parts of one written in Python.
    An actor's loss goes through critics and a world model, whose weights are not asked for. For the same reason it is
    given a detached value; a second derivative through a gradient of weights is an error.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return value.new_zeros(()).expand(len(value), len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (value,), (to_weight, to_bias, _) = ctx.saved_tensors, ctx.needs_input_grad
        return (_transposed_product(gradient, value) if to_weight else None, gradient.sum(0) if to_bias else None, None)


class _Linear(torch.autograd.Function):
    """(N, I), (O, I), (O,) and what `_ToWeights` gave -> (N, O); gradients of the value are differentiable."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, bias: Tensor | None, to_weights: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return _product()(value, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (to_value, *_, to_weights) = ctx.saved_tensors, ctx.needs_input_grad
        return (linear(gradient, weight.T) if to_value else None, None, None, gradient if to_weights else None)


def onednn_wins(value: Tensor, multiplications: int) -> bool:
    """Whether `linear` takes oneDNN for a product of so many multiplications."""
    return (multiplications >= (WORTHWHILE if torch.is_grad_enabled() else WITHOUT_GRADIENTS) and value.is_cpu
            and value.dtype == torch.float32 and _product() is not None and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling())


def linear(value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: (..., I), (O, I), (O,) -> (..., O)."""
    if not onednn_wins(value, value.numel() * len(weight)):
        return functional.linear(value, weight, bias)
    if not torch.is_grad_enabled():
        return _product()(value, weight, bias, "none", [], "")
    flat = value.reshape(-1, value.shape[-1])
    found = _Linear.apply(flat, weight, bias, _ToWeights.apply(weight, bias, flat.detach()))
    # Not even a view of the same shape: what is done to one in place is done to copies in the backward pass.
    return found if value.dim() == 2 else found.view(*value.shape[:-1], len(weight))


def fixed(weight: Tensor, bias: Tensor, rows: int, then: Literal["none", "relu"] = "none"
          ) -> Callable[[Tensor], Tensor]:
    """`linear` of values (about `rows`, I), and a ReLU, with weights that stay; without gradients.

    oneDNN gets the weights in the order in which it reads them: a tenth less time with 39 rows of 128.
    """
    if onednn_wins(weight, rows * weight.numel()):
        product, packed = _product(), torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        return lambda value: product(value, packed, bias, then, [], "")
    if then == "relu":
        return lambda value: functional.linear(value, weight, bias).relu_()
    return lambda value: functional.linear(value, weight, bias)


def at_least_float32(value: Tensor) -> Tensor:
    """What autocast made half as precise, for sums, losses and states that last; anything else as it is."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


class Linear(nn.Linear):
    """`torch.nn.Linear`, by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)
