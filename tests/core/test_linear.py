"""oneDNN's linear layer gives what torch's does, in values and in gradients of the first and second order."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from safe_policy_core.networks import linear as module
from safe_policy_core.networks.linear import Linear, fixed, linear
from safe_policy_core.networks.paired import PairedMlp


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN on any processor and for any size: with MKL on both sides there would be nothing to compare."""
    monkeypatch.setattr(module, "WORTHWHILE", 0)
    monkeypatch.setattr(module, "WITHOUT_GRADIENTS", 0)
    monkeypatch.setattr(module, "_product", lambda: torch.ops.mkldnn._linear_pointwise)


def _parts(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(*shape, generator=generator).requires_grad_(),
            (torch.randn(7, shape[-1], generator=generator) / 4).requires_grad_(),
            torch.randn(7, generator=generator).requires_grad_())


@pytest.mark.parametrize("shape", [(1, 16), (33, 16), (3, 5, 16), (2, 3, 4, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    value, weight, offset = _parts(*shape)
    parts = (value, weight, offset) if bias else (value, weight)
    ours, theirs = linear(*parts), functional.linear(*parts)
    assert "Addmm" not in type(ours.grad_fn).__name__ and ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for loss in (lambda output: output.square().sum(), lambda output: output.sum()):  # the second's has strides of 0
        for own, expected in zip(torch.autograd.grad(loss(linear(*parts)), parts),
                                 torch.autograd.grad(loss(functional.linear(*parts)), parts), strict=True):
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_a_penalty_on_the_gradient_can_be_learned_from() -> None:
    found = []
    for layer in (linear, functional.linear):
        value, weight, offset = _parts(9, 16)
        (slope,) = torch.autograd.grad(layer(value, weight, offset).tanh().sum(), value, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), (weight, offset)))
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_a_second_derivative_that_would_be_wrong_is_an_error() -> None:
    value, weight, _ = _parts(9, 16)
    (slope,) = torch.autograd.grad(linear(value, weight).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiate twice|not have been used"):
        torch.autograd.grad(slope.sum(), value)


def test_gradients_that_nobody_asked_for_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor's loss goes through the critics: two of three products would be for nothing."""
    calls: list[torch.Size] = []

    def counted(value: Tensor, *others: object) -> Tensor:
        calls.append(value.shape)
        return torch.ops.mkldnn._linear_pointwise(value, *others)

    monkeypatch.setattr(module, "_product", lambda: counted)
    value, weight, offset = _parts(9, 16)
    back, to_weights = torch.Size((9, 7)), torch.Size((7, 9))
    for given, wanted, expected in ((value, (value,), {back}), (value.detach(), (weight, offset), {to_weights}),
                                    (value, (value, weight, offset), {back, to_weights})):
        output = linear(given, weight, offset).sum()
        calls.clear()
        torch.autograd.grad(output, wanted)
        assert set(calls) == expected
        assert len(calls) == len(expected)


def test_views_of_weights_and_other_types() -> None:
    value, weight, offset = _parts(9, 16)
    rows = torch.randn(16, 7)
    torch.testing.assert_close(linear(value, rows.T), value @ rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(linear(value[::2, :], weight[2:], offset[2:]),
                               functional.linear(value[::2, :], weight[2:], offset[2:]), rtol=1e-4, atol=1e-4)
    double = [part.double() for part in (value, weight, offset)]
    assert linear(*double).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(value, weight, offset).dtype == torch.bfloat16
    with torch.inference_mode():
        torch.testing.assert_close(linear(value, weight, offset), functional.linear(value, weight, offset))


def test_the_module_has_the_weights_of_torch_and_its_names() -> None:
    torch.manual_seed(1)
    ours = Linear(16, 7)
    torch.manual_seed(1)
    theirs = torch.nn.Linear(16, 7)
    theirs.load_state_dict(ours.state_dict())
    value = torch.randn(5, 16)
    torch.testing.assert_close(ours(value), theirs(value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("candidates", [(), (4,)])
def test_networks_one_by_one_are_those_in_one_pass(candidates: tuple[int, ...],
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    paired, state, choice = PairedMlp(5, 2, 3, 8, 2, members=3), torch.randn(6, 5), torch.randn(*candidates, 6, 2)
    found = []
    for product in (torch.ops.mkldnn._linear_pointwise, None):
        monkeypatch.setattr(module, "_product", lambda product=product: product)
        values = paired(state, choice, slice(1, 3))
        found.append([values, *torch.autograd.grad(values.square().sum(), list(paired.parameters()))])
    assert found[0][0].shape == (2, *candidates, 6, 3)
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 39])
@pytest.mark.parametrize("then", ["none", "relu"])
def test_weights_that_stay_give_the_same(rows: int, then: Literal["none", "relu"]) -> None:
    layer, value = torch.nn.Linear(128, 512), torch.randn(rows, 128)
    with torch.inference_mode():
        expected = layer(value).relu() if then == "relu" else layer(value)
        found = fixed(layer.weight, layer.bias, 39, then)(value)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
