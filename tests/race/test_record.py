"""What is recorded gives the same as the function it was recorded from, and lets go of what it no longer needs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from unstuck.race.kernels import BOUND, SHORT, called, faster
from unstuck.race.record import leaves, recorded

aten = torch.ops.aten


def test_leaves_in_order() -> None:
    assert leaves([1, (2, {"a": 3, "b": [4]}), [], {}]) == [1, 2, 3, 4] and leaves(5) == [5]


def test_a_replay_gives_what_the_function_gives() -> None:
    def loss(weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
        parts = (x @ weight).split(2, -1)
        return torch.nn.functional.cross_entropy(torch.cat(parts[::-1], -1).exp().clamp(max=9.0), y)

    def function(inputs):
        weight, batch = inputs
        return vmap(grad_and_value(loss), in_dims=(0, None, None))(weight, *batch)

    draws = [(torch.randn(3, 5, 6), (torch.randn(20, 5), torch.randint(0, 6, (20,)))) for _ in range(3)]
    replay = recorded(function, draws[0])
    for inputs in draws:
        for found, right in zip(replay(leaves(inputs)), function(inputs), strict=True):
            assert torch.allclose(found, right, rtol=1e-5, atol=1e-6)


def test_what_acts_in_place_acts_again() -> None:
    def function(inputs):
        moved = inputs[0].clone()
        moved.view(-1)[1:].mul_(2)
        return [moved, inputs[0].view(inputs[0].shape)]

    replay, x = recorded(function, [torch.ones(3)]), torch.tensor([1.0, 2.0, 3.0])
    assert [t.tolist() for t in replay([x])] == [[1.0, 4.0, 6.0], [1.0, 2.0, 3.0]] == [t.tolist() for t in replay([x])]


def test_constants_of_the_function_stay_what_they_are() -> None:
    weight = torch.tensor([1.0, 2.0])
    replay = recorded(lambda inputs: inputs[0] * weight + float("inf"), [torch.ones(2)])
    assert torch.equal(replay([torch.full((2,), 3.0)])[0], torch.full((2,), torch.inf))
    replay = recorded(lambda inputs: inputs[0] * weight, [torch.ones(2)])
    assert replay([torch.full((2,), 3.0)])[0].tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda inputs: inputs[0] * float(inputs[0].sum()), "depends on a tensor's content"),
        (lambda inputs: torch.ones(()).new_tensor(1.0).item(), "depends on a tensor's content"),
        (lambda inputs: torch.from_numpy(inputs[0].numpy()) * 2, "no operation made"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_operations_says_why(function, why: str) -> None:
    with pytest.raises(RuntimeError, match=why):
        recorded(function, [torch.ones(3)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(3, 32, 10), (40, 5), (2, 3, 17, 1)])
@pytest.mark.parametrize("forward", [aten._log_softmax.default, aten._softmax.default])
def test_a_softmax_across_rows_is_the_softmax(dtype: torch.dtype, size: tuple[int, ...], forward) -> None:
    back = getattr(aten, f"{forward.name()[6:]}_backward_data").default
    x, gradient = torch.randn(size, dtype=dtype) * 30, torch.randn(size, dtype=dtype)
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for dim in (-1, len(size) - 1):
        across, across_back = faster(forward, (x, dim, False)), faster(back, (gradient, x, dim, dtype))
        value = forward(x, dim, False)
        assert torch.allclose(across(x, dim, False), value, **close)
        found = across_back(gradient, across(x, dim, False), dim, dtype)
        assert torch.allclose(found, back(gradient, value, dim, dtype), **close)


def test_what_is_called_is_the_operation() -> None:
    x, index = torch.rand(3, 3) + 1, torch.tensor([[0, 2, 1]])
    given = {
        "where": (x > 1.5, x, x * 2), "gather": (x, 1, index), "scatter": (x, 0, index, -1.0), "sum": (x, [1], True),
        "mean": (x, [0]), "amax": (x, [0], True), "cat": ([x, x], 1), "bmm": (x[None], x[None]), "addmm": (x, x, x),
        "transpose": (x, 0, 1), "permute": (x, [1, 0]), "unsqueeze": (x, 1), "squeeze": (x[None], [0]),
        "select": (x, 0, 1), "view": (x, [9]), "expand": (x[None], [2, 3, 3]), "scalar_tensor": (2.0,),
        "convolution": (x[None, None], x[None, None], None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
        **dict.fromkeys(("add", "sub", "mul", "div", "ne", "eq", "mm"), (x, x)),
    }  # fmt: skip
    overloads = {"where": "self", "scatter": "value", "sum": "dim_IntList", "mean": "dim", "transpose": "int",
                 "select": "int", "squeeze": "dims"}  # fmt: skip
    for name in BOUND:
        packet, args = getattr(aten, name), given.get(name, (x,))
        two = name in ("add", "sub", "mul", "div", "ne", "eq")
        func = getattr(packet, "Tensor" if two else overloads.get(name, "default"))
        assert called(func, args) is not func._op and torch.equal(called(func, args)(*args), func(*args)), name
    assert called(aten.add_.Tensor, (x, x)) == aten.add_.Tensor._op
    assert called(aten.add.Scalar, (x, 2, 3)) == aten.add.Scalar._op


def test_other_shapes_are_left_to_torch() -> None:
    forward = aten._log_softmax.default
    assert faster(forward, (torch.zeros(32, SHORT), 1, False)) is None
    assert faster(forward, (torch.zeros(32, 4), 0, False)) is None
    assert faster(forward, (torch.zeros(4, 4), 1, False)) is None
    assert faster(forward, (torch.zeros(4), 0, False)) is None
    assert faster(aten.relu.default, (torch.zeros(32, 4),)) is None
