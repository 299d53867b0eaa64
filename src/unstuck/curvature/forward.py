"""A forward pass fit for second derivatives: the same loss every time, and nothing moved by it.

What would make two passes differ is pinned: random numbers are seeded batch by batch (dropout keeps its masks), buffers
are handed in as copies (BatchNorm's running statistics, spectral norm's vectors stay as they are). What has no second
derivative is switched to what has: fused attention to its plain kernel, cuDNN and oneDNN recurrences to PyTorch's own,
compiled code to eager.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from unstuck.problem import Batch, Problem
from unstuck.sandbox import reseed, sandbox

_switched = ContextVar("unstuck_pinned", default=False)


@contextmanager
def pinned() -> Iterator[None]:
    """Kernels with second derivatives, eager code, and every random-number stream restored afterwards.

    To switch takes 2.5 ms, a whole product of a small network: who makes many does it once around them all, and inside
    it costs nothing (every forward pass seeds its own random numbers; the outermost puts back what was there).
    """
    if _switched.get():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(sandbox())
        stack.callback(_switched.reset, _switched.set(True))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def loss_of(problem: Problem, model: nn.Module, batch: Batch, seed: int) -> Tensor:
    """The mean loss of one batch as a scalar with its graph; call it inside `pinned`."""
    reseed(seed)
    with borrowed_buffers(model):
        value = problem.value(model, batch)
    return value.mean() if value.dim() else value


def twin_at(problem: Problem, last: bool, double: bool = False) -> nn.Module:
    """A copy of the model at the initial or last state, out of its wrappers; in float64 if `double`."""
    model = unwrapped(problem.twin(last))
    return model.double() if double else model


def unwrapped(model: nn.Module) -> nn.Module:
    """What `torch.compile` and `DataParallel` (of any kind) hold."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def plain(problem: Problem) -> Problem:
    """The problem in full precision: under autocast second derivatives are mostly rounding."""
    return replace(problem, loop=replace(problem.loop, autocast=None)) if problem.loop.autocast else problem


def doubled(batch: Batch) -> Batch:
    """The batch with its floating-point tensors in float64."""
    return pytree.tree_map(  # type: ignore[no-any-return]
        lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf, batch
    )


@contextmanager
def borrowed_buffers(model: nn.Module) -> Iterator[None]:
    """Copies in the place of the buffers while a forward pass runs: what it writes into them is forgotten."""
    homes: list[tuple[dict[str, Any], str, Tensor | None]] = [
        (module._buffers, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    for home, name, buffer in homes:
        home[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for home, name, buffer in homes:
            home[name] = buffer
