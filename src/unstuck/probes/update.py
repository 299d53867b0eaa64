"""One update of a training on a copy, as the user's loop makes it: how long it takes and what memory it needs.

    update = Update(problem)
    update.memory(batch)       # bytes
    update.seconds(batch)

An update is `loop.accumulate` forward and backward passes over one batch, clipping and the optimizer's step. Reading,
preparing and moving data are not in it, nor is what a loop does beside (logging, `loss.item()`).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unstuck.curvature.memory import held_bytes
from unstuck.errors import UnstuckError
from unstuck.problem import Batch, Problem, load_state, state_of
from unstuck.training import clip, unscale


class Update:
    """Updates of a fresh copy in its initial state; `without` says why they have no optimizer step, if so.

    The learning rate is the user's, so `reset` puts the weights back: a training that diverges is timed all the same.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.model = problem.twin()
        self.optimizer, self.without = _optimizer(problem, self.model)
        self.device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self._start = state_of(self.model)

    def __call__(self, batch: Batch) -> None:
        """Make one update, gradients cleared first. Raises UnstuckError where the loss has no gradient."""
        self.model.zero_grad()
        for _ in range(self.problem.loop.accumulate):
            self._loss(batch).backward()  # type: ignore[no-untyped-call]
        self._step()

    def reset(self) -> None:
        """Weights and buffers as they were at first, no gradients; the optimizer keeps its state."""
        self.model.zero_grad()
        load_state(self.model, self._start)

    def seconds(self, batch: Batch) -> float:
        """Wall time of one update, until the device has finished it.

        On a CPU the time of a large batch may differ twofold from one process to the next: in one the allocator keeps
        what an update frees, in the other it is handed back and mapped anew each time.
        """
        self._wait()
        began = time.perf_counter()
        self(batch)
        self._wait()
        return time.perf_counter() - began

    def memory(self, batch: Batch) -> int:
        """Bytes that one update needs beyond parameters and buffers: what is kept for the backward pass, gradients, and
        optimizer state.

        On CUDA the peak of the allocator (its peak counter starts anew), so that what kernels use meanwhile is in it.
        On other devices the sum of the storages saved for the backward pass, each once (inputs that are saved too), of
        the gradients and of the optimizer's state: an upper bound of the three, which need not stand at the same time,
        but without what kernels use as scratch and what is freed within a pass (easily as much again).
        """
        self.model.zero_grad()
        if self.device.type == "cuda":
            return self._peak(batch)
        own = [*self.model.parameters(), *self.model.buffers()]
        loss, saved = held_bytes(lambda: self._loss(batch), own)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = _bytes(p.grad for p in self.model.parameters() if p.grad is not None)
        self._step()
        return saved + gradients + self._state()

    def release(self) -> None:
        """Hand back what torch holds unused on a CUDA device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _peak(self, batch: Batch) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device) - self._state()
        self(batch)
        return torch.cuda.max_memory_allocated(self.device) - before

    def _loss(self, batch: Batch) -> Tensor:
        value = self.problem.value(self.model, batch)
        if not value.requires_grad or self.problem.loop.detached:
            raise UnstuckError("the loss has no gradient with respect to any parameter")
        return (value.mean() if value.numel() > 1 else value) * self.problem.loop.loss_scale

    def _step(self) -> None:
        if self.optimizer is None:
            return
        unscale(self.model, self.problem.loop.loss_scale)
        clip(self.model, self.problem.loop)
        self.optimizer.step()

    def _state(self) -> int:
        entries = self.optimizer.state.values() if self.optimizer else ()
        return _bytes(value for entry in entries for value in entry.values() if isinstance(value, Tensor))

    def _wait(self) -> None:
        torch.get_device_module(self.device).synchronize()


def _optimizer(problem: Problem, model: nn.Module) -> tuple[torch.optim.Optimizer | None, str]:
    """A fresh optimizer of the recipe; None, and why, where an update goes without its step."""
    if problem.optimizer is None:
        return None, "no optimizer was seen"
    optimizer: torch.optim.Optimizer = problem.optimizer.build(model)
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        return None, f"the step of {type(optimizer).__name__} evaluates the loss itself, as often as it likes"
    return optimizer, ""


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(_parts(tensor) for tensor in tensors)


def _parts(tensor: Tensor) -> int:
    if tensor.layout == torch.sparse_coo:
        return tensor._values().nbytes + tensor._indices().nbytes
    return tensor.numel() * tensor.element_size()
