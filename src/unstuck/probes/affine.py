"""Layers along a plane θ + a·d₁ + b·d₂ of parameters, for many points at once: what a stack of points can be spared.

A layer that is linear in its weight, on an input that is the same at all points (the first layer of most networks), is
affine in the coordinates, with three products for all points instead of one for each:

    x(W + a D₁ + b D₂)ᵀ  =  xWᵀ + a xD₁ᵀ + b xD₂ᵀ

Where the input differs from point to point each has its own product. Large ones are made one after the other, as a
plain call may choose its kernel (matrix products: 240 Gflop/s against 105 of vmap's batched one, on one core of an EPYC
9005) and convolutions do not become one in groups (6.5 ms against 10.6 for a point of 16).

    with Affine() as layers:
        layers.at(lines, torch.tensor([1.0, a, b]))     # before each pass, inside of vmap
        loss(…)
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LINEAR = frozenset({F.linear, F.conv1d, F.conv2d, F.conv3d})
"""Called with (input, weight, bias, …), linear in weight and bias together."""

LARGE = 2**20
"""Multiplications of a layer at one point from which a call of its own pays: a call takes some 15 µs, one core makes
10⁵ of them in a microsecond."""

Line = tuple[Tensor, Tensor, Tensor]
"""A parameter's values at θ, and its parts of d₁ and d₂."""


class Affine(TorchFunctionMode):
    """Sees the layers of a forward pass inside of vmap. What it keeps of a batch's first layers (three outputs each)
    holds for the calls of one batch: take a new one for the next."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Tensor] = []
        self._lines: Mapping[int, Line] = {}

    def at(self, lines: Mapping[int, Line], coefficients: Tensor) -> None:
        """The next forward pass is at (1, a, b); `lines` of its parameters, by their `id` in this pass."""
        self._lines, self._coefficients, self._place = lines, coefficients, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, or what gives the same sooner."""
        kwargs = kwargs or {}
        if func not in LINEAR or len(args) < 2:
            return func(*args, **kwargs)
        x, weight = args[:2]
        rest = dict(zip(("bias", "stride", "padding", "dilation", "groups"), args[2:], strict=False)) | kwargs
        bias = rest.pop("bias", None)
        if not differs(x) and id(weight) in self._lines and (not differs(bias) or id(bias) in self._lines):
            return self._affine(lambda w, b: func(x, w, b, **rest), self._lines[id(weight)], bias)
        if differs(x) and differs(weight) and _work(func, x, weight) >= LARGE:
            return Each.apply(_kernel(func, x, rest), x, weight, bias)
        return func(*args, **kwargs)

    def _affine(self, layer: Callable[[Tensor, Any], Tensor], weights: Line, bias: Tensor | None) -> Tensor:
        if self._place == len(self._kept):
            biases = self._lines.get(id(bias), (bias, None, None))
            self._kept.append(torch.stack([layer(w, b) for w, b in zip(weights, biases, strict=True)]))
        kept = self._kept[self._place]
        self._place += 1
        return (self._coefficients @ kept.flatten(1)).view(kept.shape[1:])


class Each(torch.autograd.Function):
    """A layer called point by point inside of vmap; the points' results stacked."""

    @staticmethod
    def forward(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One point."""
        return layer(x, weight, bias)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """No gradient is asked for."""

    @staticmethod
    def vmap(info: Any, places: Any, layer: Any, *tensors: Tensor | None) -> tuple[Tensor, int]:  # type: ignore[override]
        """All points."""
        columns = [
            [t] * info.batch_size if place is None else t.unbind(place)  # type: ignore[union-attr]
            for t, place in zip(tensors, places[1:], strict=True)
        ]
        results = [layer(*point) for point in zip(*columns, strict=True)]
        return torch.stack(results) if len(results) > 1 else results[0].unsqueeze(0), 0


def differs(tensor: Any) -> bool:
    """True inside of vmap for what has another value at each point."""
    return isinstance(tensor, Tensor) and torch._C._functorch.is_batchedtensor(tensor)


def _work(func: Any, x: Tensor, weight: Tensor) -> int:
    """Multiplications of a layer at one point (of a convolution, about: as if with stride one)."""
    return x.numel() * weight.shape[0] * (1 if func is F.linear else weight[0, 0].numel())


def _kernel(func: Any, x: Tensor, rest: dict[str, Any]) -> Callable[..., Tensor]:
    if func is F.linear:
        return _onednn if x.device.type == "cpu" and x.dtype == torch.float32 and onednn_pays() else F.linear
    return lambda x, weight, bias: func(x, weight, bias, **rest)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


@functools.cache
def onednn_pays() -> bool:
    """True where oneDNN multiplies matrices faster than what torch calls by itself (MKL, which on some processors uses
    half of their width: 240 against 107 Gflop/s were measured). Tried once, in some milliseconds."""
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(512, 256), torch.ones(256, 256)
    with torch.no_grad():
        own, other = (_seconds(functools.partial(way, x, weight, None)) for way in (F.linear, _onednn))
    return other < own


def _seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """The fastest of some repeats."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
