"""The thin wraps through which a training is seen; installed together, removed together, nothing else is touched.

| wrapped                                   | seen                                             |
|-------------------------------------------|--------------------------------------------------|
| `Tensor.backward`                         | the loss, just before its gradient               |
| `Optimizer.__init__`, `LRScheduler.__init__` | the line of the script that made them         |
| `DataLoader.__iter__` and its `__next__`  | where batches come from                          |
| `clip_grad_norm_`, `clip_grad_value_`     | bound and what it did                            |
| `GradScaler.scale`, `.unscale_`           | the loss before scaling; clipping before it      |
| `Module.eval`                             | that a validation may follow                     |
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from unstuck.capture.drawing import Drawing
from unstuck.capture.pulse import Pulse
from unstuck.capture.scaling import Scaling
from unstuck.loop import Clip


class Observer(Protocol):
    """What the wraps report of steps to."""

    def before_backward(self, loss: torch.Tensor) -> None:
        """A backward pass is about to run."""

    def made_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer was made."""

    def made_scheduler(self, scheduler: Any) -> None:
        """A learning-rate scheduler was made."""

    def entered_eval(self, module: torch.nn.Module) -> None:
        """A module was put in evaluation mode."""


def install(observer: Observer, scaling: Scaling, drawing: Drawing, pulse: Pulse) -> ExitStack:
    """Put all wraps in place; closing what is returned removes them. Backwards go through the pulse first."""
    stack = ExitStack()
    # A compiled module warns of every global hook; ours is off again before its code runs.
    stack.enter_context(_ignoring("Using `torch.compile"))
    original = torch.Tensor.backward
    _put(stack, torch.Tensor, "backward", pulse.backward(original, observer.before_backward), original)
    _after(stack, torch.optim.Optimizer, "__init__", lambda out, self, *a, **k: observer.made_optimizer(self))
    _after(stack, torch.optim.lr_scheduler.LRScheduler, "__init__", lambda out, s, *a, **k: observer.made_scheduler(s))
    _before(stack, DataLoader, "__iter__", drawing.began_loader)
    _around(stack, _BaseDataLoaderIter, "__next__", drawing.draw_batch)
    _before(stack, torch.nn.Module, "eval", observer.entered_eval)
    _clips(stack, scaling)
    for scaler in _scalers():
        _after(stack, scaler, "scale", lambda out, self, loss: scaling.scaled(loss, out))
        _after(stack, scaler, "unscale_", lambda out, self, optimizer: scaling.unscaled())
    return stack


@contextmanager
def _ignoring(beginning: str) -> Iterator[None]:
    warnings.filterwarnings("ignore", message=beginning)
    ours = warnings.filters[0]
    try:
        yield
    finally:
        if ours in warnings.filters:
            warnings.filters.remove(ours)  # type: ignore[attr-defined]


def _clips(stack: ExitStack, scaling: Scaling) -> None:
    def norm(out: Any, parameters: Any, max_norm: Any = None, norm_type: Any = 2.0, *a: Any, **k: Any) -> None:
        scaling.clipped(Clip("norm", float(max_norm), float(norm_type)), out)

    def value(out: Any, parameters: Any, clip_value: Any = None, *a: Any, **k: Any) -> None:
        scaling.clipped(Clip("value", float(clip_value)), None)

    for module in (torch.nn.utils, torch.nn.utils.clip_grad):
        _after(stack, module, "clip_grad_norm_", norm)
        _after(stack, module, "clip_grad_value_", value)


def _scalers() -> list[type]:
    from torch.amp.grad_scaler import GradScaler

    return [GradScaler]


def _before(stack: ExitStack, owner: Any, name: str, see: Callable[[Any], None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        see(self)
        return original(self, *args, **kwargs)

    _put(stack, owner, name, wrapped, original)


def _after(stack: ExitStack, owner: Any, name: str, see: Callable[..., None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        out = original(*args, **kwargs)
        see(out, *args, **kwargs)
        return out

    _put(stack, owner, name, wrapped, original)


def _around(stack: ExitStack, owner: Any, name: str, run: Callable[[Any, Callable[[Any], Any]], Any]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any) -> Any:
        return run(self, original)

    _put(stack, owner, name, wrapped, original)


def _put(stack: ExitStack, owner: Any, name: str, wrapped: Any, original: Any) -> None:
    own = name in vars(owner)
    setattr(owner, name, wrapped)
    stack.callback(setattr, owner, name, original) if own else stack.callback(delattr, owner, name)
