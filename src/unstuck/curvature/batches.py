"""The data a Hessian averages over: batches with the weights that make it the mean over samples.

    mean reduction      L = Σ_b (n_b / N) L_b
    sum reduction       L = (n / N) Σ_b L_b          (n: the largest batch, N samples in all)

so that ragged last batches count by their samples, and a summed loss keeps the scale that the user's steps see. Which
of the two a loss is, is tried: a batch against its halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from unstuck.curvature.memory import out_of_memory
from unstuck.errors import BadArgument
from unstuck.problem import Batch, Problem, batch_size, distinct, samples_a_batch, training_rows
from unstuck.rows import Rows
from unstuck.sandbox import sandbox

SAME = 1e-3
"""A loss that is a mean (or a sum) over samples agrees with its halves to rounding; one that is not (batch statistics,
contrastive pairs) differs by more."""

SMALL, JOINED, LARGE = 32, 8, 256
"""Batches below the first are joined; so many are for the trial; samples in a batch then."""


@dataclass(frozen=True)
class Data:
    """Batches (a sequence, or any iterable that can be run through again) with their sizes and weights (Σ = 1 for a
    mean). `reduction`: mean, sum, or unknown where halves do not tell (then weighed as a mean). `names`: what each
    batch is called by, whatever part of the data it stands in: its random numbers and its kept graph go by it. `scale`:
    the loss over any part is this times the mean over samples (1, or for a sum the largest batch's size n)."""

    batches: Iterable[Batch]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    reduction: str
    names: tuple[int, ...]
    scale: float = 1.0

    @property
    def shares(self) -> tuple[float, ...]:
        """Each batch's share of the samples."""
        return tuple(size / self.samples for size in self.sizes)

    @property
    def samples(self) -> int:
        """Samples in all."""
        return sum(self.sizes)

    def part(self, places: Iterable[int]) -> Data:
        """Only the batches at these places, weighed anew."""
        with sandbox():
            batches, chosen = tuple(self.batches), list(places)
        sizes = tuple(self.sizes[i] for i in chosen)
        names = tuple(self.names[i] for i in chosen)
        shares = weights(sizes, self.reduction, self.scale)
        return Data(tuple(batches[i] for i in chosen), sizes, shares, self.reduction, names, self.scale)

    def cut(self, least: int) -> Data:
        """The same data in at least so many batches, where they can be cut."""
        data = self
        while len(data.sizes) < least:
            smaller = data.halved()
            if smaller is None:
                break
            data = smaller
        return data

    def halved(self) -> Data | None:
        """The same data in batches of half the rows; None where that is not possible."""
        if self.reduction.startswith("unknown") or max(self.sizes) < 2:
            return None
        batches = tuple(part for batch in self.batches for part in halves(tuple(batch)) or (tuple(batch),))
        sizes = tuple(batch_size(batch) or 1 for batch in batches)
        shares = weights(sizes, self.reduction, self.scale)
        fresh = 1 + max(self.names)
        return Data(batches, sizes, shares, self.reduction, tuple(range(fresh, fresh + len(sizes))), self.scale)


def data_of(
    problem: Problem, loss: Callable[[Batch], float], batches: Iterable[Batch] | Data | None = None,
    calm: Callable[[Batch], float] | None = None,
) -> Data:
    """The problem's training batches (or these), weighed; `loss` evaluates one. Data is returned as it
    is. Costs three forward passes of the smallest batch. Raises BadArgument where there is none."""
    if isinstance(batches, Data):
        return batches
    if isinstance(batches, Iterator):
        batches = tuple(batches)
    chosen: Any = distinct((*problem.data, *problem.held_out)) if batches is None else batches
    with sandbox():
        sizes = tuple(batch_size(tuple(batch)) or 1 for batch in chosen)
    if not sizes:
        raise BadArgument("hessian: `batches` holds no batch; pass at least one, or leave it out")
    with sandbox():
        smallest = _smallest(chosen)
    kind = reduction(smallest, loss)
    if kind == "unknown" and calm is not None and reduction(smallest, calm) == "sum":
        kind = "unknown sum"
    scale = float(max(sizes)) if kind.endswith("sum") else 1.0
    return Data(chosen, sizes, weights(sizes, kind, scale), kind, tuple(range(len(sizes))), scale)


def merged(problem: Problem) -> Problem:
    """The problem with its small batches joined to larger ones, where that leaves the mean loss as it is: an
    average over all samples takes a pass over each batch, and batches of one sample take as long as those of many.

    Costs nine forward passes. As it is where batches are not small or cannot be joined, where the loss of a batch is no
    mean over its samples (batch statistics, a sum), and where dropout draws other units for it.
    """
    size, rows = samples_a_batch(problem), training_rows(problem)
    if size >= SMALL or rows is None or len(rows) < JOINED * size:
        return problem
    model = problem.twin(last=True)
    with sandbox(0), torch.no_grad():
        parts = [float(problem.value(model, batch)) for batch in rows.batches(torch.arange(JOINED * size), size)]
        whole = float(problem.value(model, rows.fetch(torch.arange(JOINED * size))))
    if not math.isclose(whole, math.fsum(parts) / JOINED, rel_tol=SAME):
        return problem
    held = Rows.of(problem.held_out, size) if problem.held_out else None
    return replace(
        problem,
        data=rows.batches(torch.arange(len(rows)), min(LARGE, len(rows))),
        loop=replace(problem.loop, batch_size=min(LARGE, len(rows))),
        held_out=held.batches(torch.arange(len(held)), min(LARGE, len(held))) if held is not None else (),
    )


def _smallest(batches: Iterable[Batch]) -> Batch:
    """The smallest batch of two rows or more, if there is one."""
    return tuple(min(batches, key=lambda batch: (batch_size(tuple(batch)) < 2, batch_size(tuple(batch)))))


def weights(sizes: tuple[int, ...], kind: str, scale: float) -> tuple[float, ...]:
    """The weight of each batch in the loss over all of them: scale · n_b / N of a mean, scale / N of a sum."""
    samples = sum(sizes)
    return tuple(scale * (1 if kind.endswith("sum") else size) / samples for size in sizes)


def reduction(batch: Batch, loss: Callable[[Batch], float]) -> str:
    """mean, sum or unknown: the loss of a batch against its two halves."""
    parts = halves(batch)
    if parts is None:
        return "unknown"
    try:
        whole, first, second = loss(batch), loss(parts[0]), loss(parts[1])
    except Exception as error:  # a program with the batch's size written into it
        return reduction(parts[1], loss) if out_of_memory(error) else "unknown"
    n, m = batch_size(parts[0]), batch_size(parts[1])
    close = SAME * max(abs(whole), abs(first), abs(second), 1e-12)
    if math.isclose(whole, (n * first + m * second) / (n + m), rel_tol=0, abs_tol=close):
        return "mean"
    if math.isclose(whole, first + second, rel_tol=0, abs_tol=close):
        return "sum"
    return "unknown"


def halves(batch: Batch) -> tuple[Batch, Batch] | None:
    """Two batches of half the rows; None where there are fewer than two."""
    size = batch_size(batch)
    return (rows(batch, slice(0, size // 2)), rows(batch, slice(size // 2, size))) if size > 1 else None


def rows(batch: Batch, which: slice) -> Batch:
    """These rows of every tensor that has as many as the batch has samples."""
    size = batch_size(batch)
    return pytree.tree_map(  # type: ignore[no-any-return]
        lambda leaf: leaf[which] if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == size else leaf, batch
    )
