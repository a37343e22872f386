"""Adam with gradient clipping whose whole state is named tensors, ready for a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

LAST_RATE = 0.03
"""What a falling learning rate falls to, as a share of its greatest."""


def rate_at(step: int, warm_up: int = 0, decay: int = 0) -> float:
    """Share of the learning rate at a step from 1 on: it rises for `warm_up` steps and falls, along half a cosine,
    until the step `decay`. 0: it does not rise, and does not fall.
    """
    rate = min(1.0, step / warm_up) if warm_up else 1.0
    if not decay:
        return rate
    return rate * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * min(1.0, step / decay))) / 2)


class Optimiser:
    """One Adam over a module's trainable parameters.

    clip: largest gradient norm. weight_decay: decoupled (AdamW). Gradients are taken for these parameters
    alone: a loss whose graph runs through other modules (an actor through a frozen world model) leaves
    those untouched.
    """

    def __init__(self, module: nn.Module, learning_rate: float, clip: float, epsilon: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        self._names, self._parameters = zip(*((name, parameter) for name, parameter in module.named_parameters()
                                              if parameter.requires_grad), strict=True)
        self._clip, self._learning_rate = clip, learning_rate
        kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self._adam = kind(self._parameters, learning_rate, eps=epsilon, weight_decay=weight_decay, fused=True)

    def step(self, loss: Tensor, context: Tensor | None = None, rate: float = 1.0) -> float:
        """One step down the gradient of a scalar loss, at `rate` times the learning rate. Returns the gradient's norm
        before clipping.

        context: a leaf that the loss may depend on; the gradient with respect to it is added to `context.grad`.
        Raises `FloatingPointError` when the norm is not finite; no parameter has changed then.
        """
        inputs = self._parameters if context is None else (*self._parameters, context)
        gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
        if context is not None and (more := gradients[-1]) is not None:
            context.grad = more if context.grad is None else context.grad + more
        gradients = gradients[:len(self._parameters)]
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out_as(parameter, gradient)
        return self._apply(rate, f"; loss {loss.item()}")

    def add(self, loss: Tensor) -> None:
        """Adds a scalar loss's gradient to those that `apply` takes its step with: a batch in parts."""
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None and parameter.grad is None:
                parameter.grad = _laid_out_as(parameter, gradient)
            elif gradient is not None:
                parameter.grad = parameter.grad.add_(gradient)

    def apply(self, rate: float = 1.0) -> float:
        """One step down the sum of the losses added, at `rate` times the learning rate; otherwise like `step`."""
        return self._apply(rate)

    def _apply(self, rate: float, told: str = "") -> float:
        for group in self._adam.param_groups:
            group["lr"] = rate * self._learning_rate
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._clip))
        if not norm < float("inf"):
            self._adam.zero_grad(set_to_none=True)
            raise FloatingPointError(f"gradient norm is {norm}{told}")
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Moments and step counts by "parameter/moment"; empty before the first step."""
        state = self._adam.state
        return {f"{name}/{moment}": value for name, parameter in zip(self._names, self._parameters, strict=True)
                for moment, value in state.get(parameter, {}).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `tensors`. Raises `KeyError` for a parameter this optimiser does not have."""
        parameters = dict(zip(self._names, self._parameters, strict=True))
        self._adam.state.clear()
        for key, value in tensors.items():
            name, moment = key.rsplit("/", 1)
            parameter = parameters[name]
            if moment != "step":
                self._adam.state[parameter][moment] = _laid_out_as(parameter, value.clone())
            else:
                device = "cpu" if parameter.device.type == "cpu" else parameter.device
                self._adam.state[parameter][moment] = value.detach().clone().to(device)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` in the parameter's memory layout, itself where it has that layout on that device already.

    The fused Adam pairs elements by their place in memory: with a channels-last weight and a
    moment or gradient of another layout it would, without a word, update the wrong elements.
    """
    if value.stride() == parameter.stride() and value.device == parameter.device and not value.requires_grad:
        return value
    return torch.empty_like(parameter).copy_(value.detach())
