"""The one Hessian-vector product: H v of the mean loss of a Problem over its batches.

    H v = Σ_b w_b ∇(∇L_b · v)

Three ways, of which `curvature.measure` takes the first that works and passes its check:

    cached graph    reverse over reverse on a kept graph          about 1.3 to 2.2 gradients a product
    recomputed      the same where graphs do not fit in memory    2.4 to 3.4
    differences     (∇L(θ + h v) − ∇L(θ − h v)) / 2h              2, for models without second derivatives

Forward over reverse (`torch.func.hessian`, `jvp` of `grad`) is not used: it is silently wrong for LayerNorm and for
BatchNorm in train mode.

    hessian = Hessian(problem)
    hessian(v)                        # v [n] or rows [k, n]; n = hessian.size
    hessian.slopes().gradient
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from unstuck.curvature.batches import Data, data_of
from unstuck.curvature.flat import Flat
from unstuck.curvature.forward import borrowed_buffers, doubled, loss_of, pinned, plain, twin_at
from unstuck.curvature.memory import SHARE, Graphs, available, out_of_memory
from unstuck.errors import NotMeasurable
from unstuck.problem import Batch, Problem
from unstuck.sandbox import reseed

REVERSE, DIFFERENCES = "reverse over reverse", "differences"

Gradients = tuple[tuple[Tensor | None, ...], Tensor]
"""A gradient for each parameter (None: no influence), and the loss."""

TOGETHER = 64
"""Vectors that go through a graph at once (vmap): of little use for large networks, ten times faster for small ones."""

T = TypeVar("T")


@dataclass(frozen=True)
class Slopes:
    """Loss and gradient [n] over the data. `noise`: standard error √(E‖ĝ − ∇L‖²) of the gradient over samples, from the
    spread of the batches (NaN for a single one)."""

    loss: float
    gradient: Tensor
    noise: float

    @property
    def norm(self) -> float:
        """‖∇L‖."""
        return float(self.gradient.norm())


class Hessian:
    """Products with the Hessian of a problem's mean loss at its last (or initial) state.

    problem    the training; autocast is left out (second derivatives in half precision are mostly rounding)
    batches    the data; the problem's own training batches if left out; any iterable that can be run through again
    last       at the state where the training was left (False: where it began)
    double     in float64
    memory     bytes that graphs may take while they are kept (a quarter of what is free, if left out)
    way        reverse over reverse, or differences
    step       length of the differences' step (absolute, for a direction of length one)

    Counts what it spends: `products`, `seconds`. Modes of layers are those of the training, dropout keeps its masks,
    buffers are untouched. Where memory runs out, graphs are no longer kept, then batches are halved. Raises
    NotMeasurable where there is nothing to differentiate or the loss is not finite.
    """

    def __init__(
        self,
        problem: Problem,
        batches: Iterable[Batch] | Data | None = None,
        last: bool = True,
        double: bool = False,
        memory: int | None = None,
        way: str = REVERSE,
        step: float = 1e-7,
    ) -> None:
        self.problem = plain(problem)
        self.double, self.last, self.way, self.step = double, last, way, step
        self.model = twin_at(self.problem, last, double)
        self.flat = Flat(self.model)
        self.data = data_of(self.problem, self.value, batches, self._calm)
        self.graphs = Graphs(int(SHARE * available(self.flat.device)) if memory is None else memory)
        self.batched = True
        self.products = 0
        self.seconds = 0.0
        self._elsewhere: list[tuple[nn.Module, Flat]] = []

    @property
    def size(self) -> int:
        """Number of trainable parameters, n."""
        return self.flat.size

    @property
    def rung(self) -> str:
        """How products are made: cached graph, partly cached, recomputed, or differences."""
        if self.way == DIFFERENCES:
            return f"differences in {str(self.flat.dtype).removeprefix('torch.')}"
        kept = sum(name in self.graphs.kept for name in self.data.names)
        if self.products and not kept:
            return "recomputed"
        return "cached graph" if kept in (0, len(self.data.names)) else f"cached graph for {kept} batches of " + str(
            len(self.data.names))  # fmt: skip

    def __call__(self, vectors: Tensor) -> Tensor:
        """H v for v [n], or row by row for [k, n]: rows share each batch's graph. In `flat.dtype`."""
        rows = self.flat.movable(vectors.reshape(-1, self.size).to(self.flat.device, self.flat.dtype))
        product = self._clocked(lambda: self._differences(rows) if self.way == DIFFERENCES else self._reverse(rows))
        self.products += len(rows)
        return product.reshape(vectors.shape)

    def along(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """H v [n], and vᵀH_b v of each batch, float64 [batches], for a direction v [n]. One product; keeps no graph."""
        total, quotients = torch.zeros_like(direction), []
        with pinned():
            for place, share in enumerate(self.data.shares):
                part = self.part([place])
                part.graphs = Graphs(0, kept=self.graphs.kept)
                product = part(direction)
                self.seconds += part.seconds
                total.add_(product, alpha=share)
                quotients.append(float(direction @ product))
        self.products += 1
        return total, torch.tensor(quotients, dtype=torch.float64)

    def slopes(self) -> Slopes:
        """Loss, gradient and its sampling noise. One gradient, and half as much again where graphs are made to stay."""
        return self._clocked(self._slopes)

    def losses_at(self, direction: Tensor, lengths: Sequence[float]) -> Tensor:
        """Loss of each batch at θ + αv, α in `lengths`: float64 [lengths, batches]. Each a third of a gradient."""
        return self._clocked(lambda: self._losses_at(direction, lengths))

    def gradient_at(self, direction: Tensor, length: float) -> Tensor:
        """The gradient [n] at θ + αv. One gradient."""
        return self._clocked(lambda: self._gradient_at(direction, length))

    def difference(self, direction: Tensor, step: float) -> Tensor:
        """(∇L(θ + h v) − ∇L(θ − h v)) / 2h for v of length one. Two gradients."""
        return self._clocked(lambda: self._difference(direction, step))

    def value(self, batch: Batch) -> float:
        """The loss of one batch. One forward pass."""
        with pinned(), torch.no_grad():
            return float(loss_of(self.problem, self.model, doubled(batch) if self.double else batch, 0))

    def _calm(self, batch: Batch) -> float:
        """The loss of one batch in eval mode, where rows know nothing of each other."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            return self.value(batch)
        finally:
            for module, training in modes.items():
                module.training = training

    def losses(self, most: int | None = None, seed: int = 0) -> list[float]:
        """The loss of each of the first `most` batches, those drawn under this seed."""
        return self._clocked(lambda: self._losses(most, seed))

    def _losses(self, most: int | None, seed: int) -> list[float]:
        reseed(seed)
        with torch.no_grad():
            return [float(loss_of(self.problem, self.model, b, name)) for name, _, b in islice(self._batches(), most)]

    def part(self, places: Iterable[int]) -> Hessian:
        """The same over some of the batches only; kept graphs are shared with the whole."""
        part = copy.copy(self)
        part.data = self.data.part(places)
        part.products, part.seconds = 0, 0.0
        return part

    def release(self) -> None:
        """Let go of the kept graphs."""
        self.graphs.clear()

    # --- over the batches -----------------------------------------------------------------------------------------

    def _clocked(self, work: Callable[[], T]) -> T:
        """What `work` returns, its seconds counted; where memory runs out, again in smaller pieces."""
        began = time.perf_counter()
        try:
            while True:
                try:
                    with pinned():
                        return work()
                except (RuntimeError, MemoryError) as error:
                    if not out_of_memory(error):
                        raise
                    self._shrink(error)
        finally:
            self.seconds += time.perf_counter() - began

    def _shrink(self, error: BaseException) -> None:
        if self.graphs.limit:
            self.graphs.clear()
            self.graphs.limit = 0
            return
        smaller = self.data.halved()
        if smaller is None:
            size = max(self.data.sizes)
            raise NotMeasurable(f"out of memory on a batch of {size} that cannot be cut: {error}") from None
        self.data = smaller

    def _batches(self) -> Iterator[tuple[int, float, Batch]]:
        for name, weight, batch in zip(self.data.names, self.data.weights, self.data.batches, strict=True):
            yield name, weight, doubled(tuple(batch)) if self.double else tuple(batch)

    def _slopes(self) -> Slopes:
        total, squares, gradient = 0.0, 0.0, self._zeros()
        keep = self.way == REVERSE and self.graphs.limit > 0
        for (name, weight, batch), share in zip(self._batches(), self.data.shares, strict=True):
            grads, loss = self._graph(name, batch) if keep else self._gradient(name, batch)
            one = weight * self.flat.join(grads)
            total += weight * float(loss)
            gradient += one
            squares += float(one.norm()) ** 2 / share
        count = len(self.data.sizes)
        spread = max(squares - float(gradient.norm()) ** 2, 0.0)
        return Slopes(_finite(total), gradient, math.sqrt(spread / (count - 1)) if count > 1 else math.nan)

    def _reverse(self, rows: Tensor) -> Tensor:
        total = torch.zeros_like(rows)
        for name, weight, batch in self._batches():
            grads, _ = self._graph(name, batch)
            total.add_(self._pulled(grads, rows), alpha=weight)
        return total

    def _differences(self, rows: Tensor) -> Tensor:
        lengths = rows.norm(dim=1).tolist()
        return torch.stack([
            length * self._difference(row / length, self.step) if length else torch.zeros_like(row)
            for row, length in zip(rows, lengths, strict=True)
        ])  # fmt: skip

    def _difference(self, direction: Tensor, step: float) -> Tensor:
        return (self._gradient_at(direction, step) - self._gradient_at(direction, -step)) / (2 * step)

    def _losses_at(self, direction: Tensor, lengths: Sequence[float]) -> Tensor:
        model, flat = self._other()
        direction = flat.movable(direction.to(flat.device, flat.dtype))
        start, table = self.flat.values(), []
        with torch.no_grad():
            for length in lengths:
                flat.write(start + length * direction)
                table.append([float(loss_of(self.problem, model, batch, name)) for name, _, batch in self._batches()])
        return torch.tensor(table, dtype=torch.float64)

    def _gradient_at(self, direction: Tensor, length: float) -> Tensor:
        model, flat = self._other()
        direction = flat.movable(direction.to(flat.device, flat.dtype))
        flat.write(self.flat.values() + length * direction)
        total = self._zeros()
        for name, weight, batch in self._batches():
            for parameter in flat.parameters:
                parameter.grad = None
            # .backward, not autograd.grad: checkpointed layers know no other.
            loss = loss_of(self.problem, model, batch, name)
            with borrowed_buffers(model):  # checkpoints compute again
                loss.backward()  # type: ignore[no-untyped-call]
            total += weight * flat.join([p.grad for p in flat.parameters])
        return total

    # --- one batch ------------------------------------------------------------------------------------------------

    def _gradient(self, name: int, batch: Batch, graph: bool = False) -> Gradients:
        loss = loss_of(self.problem, self.model, batch, name)
        if not loss.requires_grad:
            raise NotMeasurable("the loss does not depend on any trainable parameter: it carries no gradient")
        if self.way == DIFFERENCES:
            for parameter in self.flat.parameters:
                parameter.grad = None
            with borrowed_buffers(self.model):
                loss.backward()  # type: ignore[no-untyped-call]
            return tuple(p.grad for p in self.flat.parameters), loss.detach()
        with borrowed_buffers(self.model):
            grads = torch.autograd.grad(loss, self.flat.parameters, create_graph=graph, allow_unused=True)
        return grads, loss.detach()

    def _graph(self, name: int, batch: Batch) -> Gradients:
        return self.graphs.get(name, lambda: self._gradient(name, batch, graph=True))

    def _pulled(self, grads: Sequence[Tensor | None], rows: Tensor) -> Tensor:
        """∇(g · v) through the graph of g, for each row v."""
        live = [k for k, g in enumerate(grads) if g is not None and g.requires_grad]
        if not live:
            return torch.zeros_like(rows)
        outputs = [g for k in live if (g := grads[k]) is not None]
        if len(rows) > 1 and self.batched:
            try:
                return torch.cat([self._together(outputs, live, some) for some in rows.split(TOGETHER)])
            except RuntimeError as error:  # an operation that vmap has no rule for
                if out_of_memory(error):
                    raise
                self.batched = False
        return torch.stack([self._alone(outputs, live, row) for row in rows])

    def _alone(self, outputs: list[Tensor], live: list[int], row: Tensor) -> Tensor:
        parts = self.flat.split(row)
        return self.flat.join(self._vjp(outputs, [parts[k] for k in live]))

    def _together(self, outputs: list[Tensor], live: list[int], rows: Tensor) -> Tensor:
        parts = self.flat.split_rows(rows)
        seeds = [parts[k] for k in live]
        return self.flat.join_rows(self._vjp(outputs, seeds, batched=True), len(rows))

    def _vjp(
        self, outputs: list[Tensor], seeds: list[Tensor], batched: bool = False
    ) -> tuple[Tensor | None, ...]:
        with borrowed_buffers(self.model):
            return torch.autograd.grad(
                outputs, self.flat.parameters, seeds, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )

    def _zeros(self) -> Tensor:
        return torch.zeros(self.size, dtype=self.flat.dtype, device=self.flat.device)

    def _other(self) -> tuple[nn.Module, Flat]:
        """A second copy of the model: the first one's parameters must stay, graphs hang on them."""
        if not self._elsewhere:
            model = twin_at(self.problem, self.last, self.double)
            self._elsewhere.append((model, Flat(model)))
        return self._elsewhere[0]


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise NotMeasurable(f"the loss is not finite ({loss}): there is no curvature to speak of")
    return loss
