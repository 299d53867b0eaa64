"""Operations that torch computes slowly on the shapes of a stack, and what gives the same faster.

The softmax of a row shorter than a vector register goes entry by entry: 10 ns for each of 10 classes (float32, with
AVX-512), as much as the rest of a small network's forward and backward. Across rows it takes 1 ns: so the classes are
made the outer dimension first. The result has that layout too, and what is computed from it goes on so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

SHORT = 16
"""Entries of a row below which the softmax across rows is faster (float64: below 100)."""

BOUND = (
    "add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "ne", "eq", "where", "gather",
    "scatter", "sum", "mean", "amax", "cat", "mm", "bmm", "addmm", "transpose", "permute", "unsqueeze", "squeeze",
    "select", "view", "expand", "clone", "zeros_like", "ones_like", "scalar_tensor", "convolution",
)  # fmt: skip
"""Functions of torch's, or methods of its tensors, that take what the operation of their name takes, in that order."""

aten = torch.ops.aten


def called(func: Any, args: Sequence[Any]) -> Callable[..., Any]:
    """What to call for `func`: something faster where it is known, else torch's own binding in Python (which takes half
    as long to come to its kernel as an operation that is looked up by name), else the operation."""
    name = func._schema.name.removeprefix("aten::")
    scaled = name in ("add", "sub") and len(args) > 2  # where torch.add(x, 2, y) is an old way to say x + 2 y
    if func._schema.is_mutable or name not in BOUND or scaled:
        return faster(func, args) or func._op  # type: ignore[no-any-return]
    return getattr(torch, name, None) or getattr(Tensor, name)  # type: ignore[no-any-return]


def faster(func: Any, args: Sequence[Any]) -> Callable[..., Any] | None:
    """What equals `func` on arguments such as these to round-off, and is faster; None where nothing is known."""
    across = ACROSS.get(func)
    if across is None or args[0].device.type != "cpu":
        return None
    size, dim = args[0].shape, args[PLACE[func]]
    last = len(size) >= 2 and dim in (-1, len(size) - 1)
    return across if last and size[-1] < SHORT <= size[-2] else None


def _forward(func: Any) -> Callable[..., Tensor]:
    def across(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
        rows = x.transpose(-1, -2).contiguous()
        return func(rows, rows.dim() - 2, half_to_float).transpose(-1, -2)  # type: ignore[no-any-return]

    return across


def _backward(func: Any) -> Callable[..., Tensor]:
    def across(gradient: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        rows, values = (tensor.transpose(-1, -2).contiguous() for tensor in (gradient, output))
        return func(rows, values, rows.dim() - 2, dtype).transpose(-1, -2)  # type: ignore[no-any-return]

    return across


ACROSS = {
    aten._log_softmax.default: _forward(aten._log_softmax.default),
    aten._softmax.default: _forward(aten._softmax.default),
    aten._log_softmax_backward_data.default: _backward(aten._log_softmax_backward_data.default),
    aten._softmax_backward_data.default: _backward(aten._softmax_backward_data.default),
}
PLACE = {func: 2 if "backward" in func.__name__ else 1 for func in ACROSS}
"""Where its arguments name the dimension."""
